// Draws reportCharts, one on each canvas of the page, in the colours of page.css.
(() => {
  const canvases = document.querySelectorAll(".chart canvas");
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];

  function config(chart) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue("--" + name).trim();
    const accents = ["accent", ...[2, 3, 4, 5, 6, 7].map((i) => "accent" + i)].map(colour);
    const bars = chart.kind === "bars";
    let drawnSeries = 0;
    const datasets = chart.series.map((series) => {
      if (!series.limit) ++drawnSeries;
      // A limit follows what it limits: a line of the same colour, or a grey bar.
      const own = bars && series.limit ? colour("limit") : accents[(drawnSeries - 1) % accents.length];
      const points = series.points.map(([x, y]) => (bars ? y : { x, y }));
      return {
        label: series.name, data: points, borderColor: own,
        backgroundColor: bars && series.limit ? own + "55" : own,
        borderDash: series.limit ? [6, 4] : [], borderWidth: bars ? 0 : 2,
        pointRadius: series.limit || points.length > 40 ? 0 : 4, tension: 0, maxBarThickness: 26,
      };
    });
    const axis = (title) => ({
      title: { display: title !== "", text: title, color: colour("faint") },
      ticks: { color: colour("faint") }, grid: { color: colour("line"), borderColor: colour("line") },
      beginAtZero: true,
    });
    const value = axis(chart.y), along = axis(chart.x);
    if (bars) along.grid.display = false; else along.type = "linear";
    if (chart.log) value.type = "logarithmic";
    return {
      type: bars ? "bar" : "line",
      data: { labels: bars ? chart.labels : undefined, datasets },
      options: {
        indexAxis: bars ? "y" : "x", responsive: true, maintainAspectRatio: false, animation: false,
        interaction: { mode: bars ? "index" : "nearest", axis: bars ? "y" : "x", intersect: false },
        scales: bars ? { x: value, y: along } : { x: along, y: value },
        plugins: {
          legend: {
            display: datasets.length > 1,
            labels: {
              color: colour("text"), boxWidth: 18,
              filter: (item) => bars || !chart.series[item.datasetIndex].limit,  // the title says it
            },
          },
        },
      },
    };
  }

  function draw() {
    for (const chart of drawn) chart.destroy();
    drawn = reportCharts.map((chart, i) => new Chart(canvases[i], config(chart)));
  }
  scheme.addEventListener("change", draw);
  draw();
})();

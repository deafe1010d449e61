// Draws reportCharts, one on each canvas of the page, in the colours of page.css. A chart says its values to the pointer, and
// to arrow keys where it has the focus.
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
    value.stacked = along.stacked = chart.stacked;
    if (chart.logX) Object.assign(along, logarithmic(chart, along));
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

  // Ticks where points are, each with some 48 pixels of room.
  function logarithmic(chart, along) {
    const places = [...new Set(chart.series.flatMap((series) => series.points.map(([x]) => x)))].sort((a, b) => a - b);
    return {
      type: "logarithmic", beginAtZero: false, min: places[0] / 1.1, max: places.at(-1) * 1.1,
      ticks: { ...along.ticks, callback: (x) => (Number.isInteger(x) ? x : Number(x.toPrecision(3))) },
      afterBuildTicks: (axis) => {
        const room = (places.at(-1) / places[0]) ** Math.min(1, 48 / axis.chart.width), shown = [];
        for (const value of places) if (shown.length === 0 || value > shown.at(-1).value * room) shown.push({ value });
        axis.ticks = shown;
      },
    };
  }

  // Bars show all series at a place, as with the pointer; lines one point.
  function choose(chart, series, index) {
    const { datasets } = chart.data;
    const elements = chart.config.type === "bar" ? datasets.map((_, datasetIndex) => ({ datasetIndex, index })) :
      [{ datasetIndex: series, index }];
    const chosen = index < 0 ? [] : elements;
    const at = index < 0 ? { x: 0, y: 0 } : chart.getDatasetMeta(series).data[index].getCenterPoint();
    chart.setActiveElements(chosen);
    chart.tooltip.setActiveElements(chosen, at);
    chart.update();
    const { title = [], body = [] } = index < 0 ? {} : chart.tooltip;
    said.textContent = [...title, ...body.flatMap((part) => part.lines)].join(", ");
  }

  function listen(canvas, i) {
    let series = 0, index = -1;
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (event) => {
      const { datasets } = drawn[i].data;
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step && event.key !== "Escape") return;
      event.preventDefault();
      if (step) series = Math.max(0, Math.min(datasets.length - 1, series + step[0]));
      index = step ? Math.max(0, Math.min(datasets[series].data.length - 1, index + step[1])) : -1;
      choose(drawn[i], series, index);
    });
    canvas.addEventListener("blur", () => {
      if (index >= 0) choose(drawn[i], series, (index = -1));
    });
  }

  function draw() {
    for (const chart of drawn) chart.destroy();
    drawn = reportCharts.map((chart, i) => new Chart(canvases[i], config(chart)));
  }
  const said = document.createElement("output");
  said.className = "said";
  said.setAttribute("aria-live", "polite");
  document.body.append(said);
  canvases.forEach(listen);
  scheme.addEventListener("change", draw);
  draw();
})();

// A table of layers by matrices, tinted by the figure that is chosen, and all figures of the matrix that is pointed at.
(() => {
  const { matrices, figures, curves, curveTitle } = matrixMap;
  const root = document.querySelector(".matrix-map");
  const layers = [...new Set(matrices.map((m) => m.layer))], names = [...new Set(matrices.map((m) => m.name))];
  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  const short = (name) => name.replace(/^.*\./, "").replace("_proj", "");
  const text = (value) => value === null ? "none" : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1)
    : Number(value.toPrecision(3)).toString();
  let figure = 0, chosen = 0;

  const tabs = make("div", root, { className: "figures" });
  const meaning = make("p", root);
  const body = make("div", root, { className: "body" });
  const scroll = make("div", body, { className: "scroll" });
  const table = make("table", scroll), said = make("output", body);
  said.setAttribute("aria-live", "polite");
  const head = make("tr", make("thead", table));
  make("th", head, { textContent: "layer" });
  names.forEach((name) => make("th", head, { textContent: short(name), title: name, scope: "col" }));
  const rows = make("tbody", table), cells = matrices.map(() => null);
  layers.forEach((layer) => {
    const row = make("tr", rows);
    make("th", row, { textContent: layer, scope: "row" });
    names.forEach((name) => {
      const i = matrices.findIndex((m) => m.layer === layer && m.name === name), cell = make("td", row);
      cells[i] = cell;
      make("span", cell);
      cell.addEventListener("mouseenter", () => choose(i));
      cell.addEventListener("click", () => choose(i));
      cell.addEventListener("focus", () => choose(i));
    });
  });
  const scale = make("div", scroll, { className: "scale" });
  const least = make("span", scale), bar = make("i", scale), most = make("span", scale);

  function tint() {
    const { values, log, meaning: words } = figures[figure];
    const there = values.filter((v) => v !== null), low = Math.min(...there), high = Math.max(...there);
    const signed = low < 0, far = log && low > 0, at = far ? Math.log : (v) => v;
    // From 0, or from a factor of e at least: what hardly differs looks alike.
    const to = signed ? Math.max(high, -low) : at(high), from = far ? Math.min(at(low), to - 1) : 0;
    values.forEach((value, i) => {
      const share = value === null || to === from ? 0 : (at(Math.abs(value)) - from) / (to - from);
      cells[i].style.setProperty("--tint", `${Math.round(60 * share)}%`);
      cells[i].classList.toggle("below", value !== null && value < 0);
      cells[i].firstChild.textContent = value === null ? "" : text(value);
      cells[i].setAttribute("aria-label", `layer ${matrices[i].layer} ${matrices[i].name}: ${text(value)}`);
    });
    meaning.textContent = words;
    bar.className = signed ? "signed" : "";
    least.textContent = there.length ? text(signed ? -to : far ? Math.exp(from) : 0) : "";
    most.textContent = there.length ? text(signed ? to : high) : "";
    tabs.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", i === figure));
  }
  // From the largest to the smallest that is known, the axis from 0.
  function curve(values) {
    const points = values.map((v, i) => `${(100 * i) / Math.max(1, values.length - 1)},${40 - (40 * v) / values[0]}`);
    return `<svg viewBox="0 -1 100 42" preserveAspectRatio="none" role="img" aria-label="${curveTitle}">` +
      `<polyline points="${points.join(" ")}"/></svg>`;
  }
  function choose(i) {
    cells[chosen].tabIndex = -1;  // not removed: it may be what has the focus
    cells[chosen].classList.remove("chosen");
    chosen = i;
    cells[i].tabIndex = 0;
    cells[i].classList.add("chosen");
    said.replaceChildren();
    make("h3", said, { textContent: `Layer ${matrices[i].layer}, ${matrices[i].name}` });
    const list = make("dl", said);
    figures.forEach(({ name, values }) => {
      const entry = make("div", list);
      make("dt", entry, { textContent: name });
      make("dd", entry, { textContent: text(values[i]) });
    });
    if (curves[i]?.length > 1) {
      make("small", said, { textContent: `${curveTitle}, the largest ${curves[i].length}` });
      said.insertAdjacentHTML("beforeend", curve(curves[i]));
    }
  }
  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -names.length, ArrowDown: names.length }[event.key];
    if (!step || !matrices[chosen + step]) return;
    event.preventDefault();
    cells[chosen + step].tabIndex = 0;
    cells[chosen + step].focus();
  });
  figures.forEach(({ name }, i) => {
    const button = make("button", tabs, { type: "button", textContent: name });
    button.addEventListener("click", () => { figure = i; tint(); });
  });
  tint();
  choose(0);
})();

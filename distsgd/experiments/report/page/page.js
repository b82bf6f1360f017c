// Zooming and switches over the same figures that the pictures show; the page is whole without it.
"use strict";
(() => {
  const told = JSON.parse(document.getElementById("figures").textContent);
  const room = document.getElementById("explore");
  const place = document.getElementById("chart");
  const shown = document.getElementById("series");
  const form = document.getElementById("switches");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const off = new Set();
  let chart = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const chosen = (name) => form.elements[name].value;
  const key = (view, one) => view.name + ":" + one.label;

  // Columns over all x of the series that are shown; null where a series has none.
  function columns(view, series) {
    const xs = [...new Set(series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
    const columns = series.map((one) => {
      const at = new Map(one.points);
      return xs.map((x) => (at.has(x) ? at.get(x) : null));
    });
    return [xs, ...columns];
  }

  function number(value) {
    return value === null || value === undefined ? "" : Number(value.toPrecision(4)).toString();
  }

  function ticks(_, values) {
    return values.map((value) => (value === null ? "" : number(value)));
  }

  // The next round numbers; left alone, a log range ends at whole decades.
  function around(low, high) {
    if (!(low > 0)) return [1, 10];
    const size = (value) => 10 ** Math.floor(Math.log10(value));
    const start = Math.floor(low / size(low)) * size(low);
    const end = Math.ceil(high / size(high)) * size(high);
    return start < end ? [start, end] : [start / 2, end * 2];
  }

  function draw() {
    const view = told.views.find((one) => one.name === chosen("view"));
    const series = view.series.filter((one) => !off.has(key(view, one)));
    if (chart) chart.destroy();
    const isLog = (axis) => chosen(axis) === "log";
    const axis = (label) => ({
      label, stroke: colour("soft"), labelSize: 24, values: ticks,
      grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid"), width: 1 },
    });
    const scale = (name) => (isLog(name)
      ? { distr: 3, time: false, range: (_, low, high) => around(low, high) }
      : { distr: 1, time: false });
    chart = new uPlot({
      width: place.clientWidth, height: Math.max(300, Math.min(460, place.clientWidth * 0.5)),
      scales: { x: scale("x"), y: scale("y") },
      axes: [axis(view.x), { ...axis(view.y), size: 68 }],
      cursor: { drag: { x: true, y: true, uni: 20 } },
      series: [
        { label: view.x, value: (_, value) => number(value) },
        ...series.map((one) => ({
          label: one.label, stroke: colour(one.colour), width: 2, dash: one.dash, spanGaps: true,
          points: { show: one.points.length < 40, size: 7 }, value: (_, value) => number(value),
        })),
      ],
    }, columns(view, series), place);
    place.dataset.view = view.name;
    place.dataset.scales = chosen("x") + " " + chosen("y");
    place.dataset.series = series.map((one) => one.label).join("|");
  }

  // A box for each series of the view; built anew with the view.
  function list() {
    const view = told.views.find((one) => one.name === chosen("view"));
    shown.querySelectorAll("label").forEach((one) => one.remove());
    for (const one of view.series) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const swatch = document.createElement("span");
      box.type = "checkbox";
      box.name = "series";
      box.checked = !off.has(key(view, one));
      box.addEventListener("change", () => {
        if (box.checked) off.delete(key(view, one));
        else off.add(key(view, one));
        draw();
      });
      swatch.className = "swatch";
      swatch.style.color = colour(one.colour);
      label.append(box, swatch, one.label);
      shown.append(label);
    }
  }

  function begin() {
    list();
    draw();
  }

  if (!told.views.length) return;
  room.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target.name === "view") begin();
    else if (event.target.name !== "series") draw();
  });
  document.getElementById("whole").addEventListener("click", draw);
  dark.addEventListener("change", begin);
  new ResizeObserver(() => {
    if (chart && Math.abs(chart.width - place.clientWidth) > 1) {
      chart.setSize({ width: place.clientWidth, height: chart.height });
    }
  }).observe(place);
  begin();
})();

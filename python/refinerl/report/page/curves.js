"use strict";
// Curves of metrics: runs overlaid, smoothed, over steps, tokens or time; seeds of one name as a band.

const HEIGHT = 190;
const settings = { x: "step", smoothing: 0, log: false, bands: true, hidden: new Set() };

const AXES = {
  step: { label: "step", of: (run) => run.steps, unit: () => 1 },
  tokens: { label: "tokens", of: (run) => run.tokens, unit: () => 1 },
  time: { label: "time", of: (run) => run.seconds, unit: (most) => (most > 7200 ? 3600 : most > 300 ? 60 : 1) },
};
const UNITS = { 1: "s", 60: "min", 3600: "h" };

/** Lines of every curve: one for each run, or for each name. */
function lines() {
  const named = new Map();
  data.runs.forEach((run, number) => {
    const key = settings.bands ? run.name : number;
    if (!named.has(key)) named.set(key, { label: settings.bands ? run.name : run.label, runs: [] });
    named.get(key).runs.push(run);
  });
  return [...named.values()].map((line, number) => ({ ...line, number, label: line.runs.length > 1 ? `${line.label} · ${line.runs.length} seeds` : line.runs[0].label }));
}

/** The divisor of x, and its label. */
function unitOfX() {
  const axis = AXES[settings.x];
  const unit = axis.unit(Math.max(0, ...data.runs.map((run) => (axis.of(run) || [0]).at(-1) || 0)));
  return { unit, label: settings.x === "time" ? `time, ${UNITS[unit]}` : axis.label };
}

/** Points of a metric in one run: x, step, value, and the ends of its interval. */
function pointsOf(run, name) {
  const xs = AXES[settings.x].of(run);
  const values = run.metrics[name];
  if (!xs || !values) return [];
  const { unit } = unitOfX();
  const lows = run.metrics[`${name}_low`];
  const highs = run.metrics[`${name}_high`];
  const sparse = name.startsWith("evaluate/"); // of some steps only: the line goes on between them
  const found = [];
  values.forEach((y, i) => {
    if (y === null && (sparse || run.steps[i] === 0)) return;
    found.push({ x: xs[i] / unit, step: run.steps[i], y, low: lows ? lows[i] : null, high: highs ? highs[i] : null });
  });
  return found;
}

/** Points of a line: of its run, or means over its runs step by step, from the lowest to the highest. */
function pointsOfLine(line, name) {
  if (line.runs.length === 1) return pointsOf(line.runs[0], name);
  const steps = new Map();
  for (const run of line.runs)
    for (const point of pointsOf(run, name)) {
      if (!steps.has(point.step)) steps.set(point.step, []);
      steps.get(point.step).push(point);
    }
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return [...steps.entries()].sort((a, b) => a[0] - b[0]).map(([step, points]) => {
    const values = points.map((point) => point.y).filter((value) => value !== null);
    const x = mean(points.map((point) => point.x));
    if (!values.length) return { x, step, y: null, low: null, high: null };
    return { x, step, y: mean(values), low: Math.min(...values), high: Math.max(...values) };
  });
}

/** Exponential moving average, corrected for its start; null stays null. */
function smoothed(values, weight) {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** One metric in a figure. */
class Curve {
  constructor(name, title) {
    this.name = name;
    this.readout = make("div", { class: "readout" });
    this.figure = make("figure", { class: "curve", tabindex: 0, "data-metric": name, "aria-label": title },
      make("figcaption", {}, make("b", {}, title), title === name ? "" : make("code", {}, name)), this.readout);
    this.figure.curve = this;
  }

  draw() {
    if (this.plot) this.plot.destroy();
    this.lines = lines().filter((line) => !settings.hidden.has(line.label));
    const tables = [];
    const series = [{}];
    const bands = [];
    this.main = [];
    for (const line of this.lines) {
      const points = pointsOfLine(line, this.name).sort((a, b) => a.x - b.x);
      const colour = lineColour(line.number);
      const raw = points.map((point) => point.y);
      const table = [points.map((point) => point.x)];
      const few = raw.filter((value) => value !== null).length <= 40;
      const add = (values, options) => {
        table.push(values);
        series.push({ points: { show: false }, spanGaps: false, ...options });
        return series.length - 1;
      };
      if (points.some((point) => point.low !== null)) {
        const high = add(points.map((point) => point.high), { stroke: "transparent", width: 0 });
        const low = add(points.map((point) => point.low), { stroke: "transparent", width: 0 });
        bands.push({ series: [high, low], fill: faded(colour, 0.16) });
      }
      if (settings.smoothing) add(raw, { stroke: faded(colour, 0.28), width: 1 });
      const values = settings.smoothing ? smoothed(raw, settings.smoothing) : raw;
      const index = add(values, { stroke: colour, width: 1.75, points: { show: few, size: 5, stroke: colour, fill: colour } });
      this.main.push({ line, index, points, colour });
      tables.push(table);
    }
    this.data = tables.length ? uPlot.join(tables) : [[]];
    const drawn = this.data.slice(1).flat().filter((value) => value !== null && value !== undefined);
    const width = this.figure.clientWidth || 340;
    this.plot = new uPlot({
      width,
      height: HEIGHT,
      series,
      bands,
      axes: axes(unitOfX().label, { whole: settings.x !== "time" }),
      scales: { x: { time: false }, y: this.scale(drawn) },
      legend: { show: false },
      cursor: { sync: { key: "curves", setSeries: false }, y: false, points: { size: 7 }, drag: { x: true, y: false } },
      hooks: { setCursor: [() => this.read()] },
    }, this.data, this.figure);
    equip(this.figure, this.plot, HEIGHT);
    this.read();
  }

  /** A linear scale, or a logarithmic one; where values are not above 0, it is linear around 0. */
  scale(values) {
    if (!settings.log || !values.length) return { auto: true };
    const sizes = values.map(Math.abs).filter((size) => size > 0).sort((a, b) => a - b);
    if (values.every((value) => value > 0)) return { distr: 3, log: 10 };
    return { distr: 4, asinh: sizes.length ? sizes[Math.floor(sizes.length / 10)] : 1 };
  }

  /** Show the values at the cursor, or the last ones. */
  read() {
    if (!this.plot) return;
    const at = this.plot.cursor.idx;
    const parts = this.main.map(({ line, index, points, colour }) => {
      const x = at === null || at === undefined ? Infinity : this.data[0][at];
      const known = points.filter((point) => point.y !== null);
      if (!known.length) return null;
      const nearest = known.reduce((best, point) => (Math.abs(point.x - x) < Math.abs(best.x - x) || x === Infinity ? point : best));
      const value = this.data[index][this.data[0].indexOf(nearest.x)];
      const interval = nearest.low === null ? "" : ` (${form(nearest.low)} to ${form(nearest.high)})`;
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = colour;
      return make("span", { title: line.label }, this.main.length > 1 ? swatch : "", `step ${nearest.step}: `, make("b", {}, form(value)), interval);
    });
    this.readout.replaceChildren(...parts.filter((part) => part !== null));
  }
}

const curves = [];
let version = 0; // of the settings

/** Draw the curves that are to be seen and do not show the settings yet. */
function drawStale() {
  for (const curve of curves)
    if (curve.version !== version && curve.figure.checkVisibility()) {
      curve.draw();
      curve.version = version;
    }
}

/** Draw anew after a change of the settings. */
function drawCurves() {
  version += 1;
  drawStale();
}

/** Make the sections, the legend and the controls. */
function showCurves() {
  if (!data.sections.length) return;
  document.getElementById("curves").hidden = false;
  const place = document.getElementById("sections");
  for (const section of data.sections) {
    const grid = make("div", { class: "grid" });
    for (const { name, title } of section.curves) {
      const curve = new Curve(name, title);
      curves.push(curve);
      grid.append(curve.figure);
    }
    const other = section === data.sections.at(-1) && section.title.startsWith("Other");
    const heading = make("summary", {}, `${section.title} `, other ? make("small", {}, `${section.curves.length}`) : "");
    place.append(make("details", { open: !other, ontoggle: drawStale }, heading, grid));
  }
  const axis = document.getElementById("axis");
  for (const name of Object.keys(AXES)) {
    if (!data.runs.some((run) => AXES[name].of(run))) continue;
    axis.append(make("label", {}, make("input", { type: "radio", name: "x", value: name, checked: name === settings.x, onchange: () => { settings.x = name; drawCurves(); } }), ` ${name}`));
  }
  const smoothing = document.getElementById("smoothing");
  smoothing.oninput = () => {
    settings.smoothing = Number(smoothing.value);
    smoothing.nextElementSibling.value = smoothing.value;
    drawCurves();
  };
  document.getElementById("log").onchange = (event) => { settings.log = event.target.checked; drawCurves(); };
  document.getElementById("seeds").hidden = new Set(data.runs.map((run) => run.name)).size === data.runs.length;
  document.getElementById("bands").onchange = (event) => {
    settings.bands = event.target.checked;
    settings.hidden.clear();
    showLegend();
    drawCurves();
  };
  showLegend();
}

/** A button for each line hides it. */
function showLegend() {
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  document.querySelectorAll(".swatch[data-run]").forEach((swatch) => {
    const run = data.runs[swatch.dataset.run];
    swatch.style.background = lineColour(lines().find((line) => line.runs.includes(run)).number);
  });
  if (data.runs.length === 1) return;
  for (const line of lines()) {
    const swatch = make("i", { class: "swatch" });
    swatch.style.background = lineColour(line.number);
    legend.append(make("button", {
      type: "button",
      "aria-pressed": String(!settings.hidden.has(line.label)),
      onclick: (event) => {
        const shown = settings.hidden.has(line.label);
        if (shown) settings.hidden.delete(line.label); else settings.hidden.add(line.label);
        event.currentTarget.setAttribute("aria-pressed", String(shown));
        drawCurves();
      },
    }, swatch, line.label));
  }
}

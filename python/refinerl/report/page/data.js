"use strict";
// The page's data, and how numbers, texts and elements are made.

const data = JSON.parse(document.getElementById("data").textContent);

/** The rollouts of a run, parsed when they are first asked for. */
const rolloutsOf = (() => {
  const parsed = new Map();
  return (run) => {
    if (!parsed.has(run)) {
      const { prompts, rows } = JSON.parse(document.getElementById(`rollouts-${run}`).textContent);
      for (const row of rows) {
        row.question = prompts[row.prompt];
        row.key = wellFormed(`${row.step}/${row.id}/${row.sample}`);
      }
      parsed.set(run, rows);
    }
    return parsed.get(run);
  };
})();

/** A text with U+FFFD for lone surrogates, as an address can hold it. */
function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** A number with four significant digits and a true minus. */
function form(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) text = value.toExponential(3);
  else if (size >= 1e4) text = Math.round(value).toLocaleString("en");
  else text = String(Number(value.toPrecision(4)));
  return text.replace(/-/g, "−");
}

/** The same with its sign. */
const signed = (value) => (value > 0 ? "+" : "") + form(value);

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu;

/** A text whose control characters, marks of direction and lone surrogates can be seen, and change nothing else. */
function visible(text) {
  return text.replace(HIDDEN, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** An element with attributes (those that begin with `on` are listeners) and children, which are nodes or texts. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

/** True if the page is dark, as the switch says or else the system. */
function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : systemIsDark.matches;
}

/** The value of a CSS variable, which is a colour of the form #rrggbb, or `light-dark(#rrggbb, #rrggbb)`. */
function css(name) {
  const colours = getComputedStyle(document.documentElement).getPropertyValue(name).match(/#\w+/g);
  return colours.at(isDark() ? -1 : 0);
}

/** The colour of the n-th line. */
const lineColour = (n) => css(`--line-${(n % 8) + 1}`);

/** A colour of the form #rrggbb with an opacity from 0 to 1. */
const faded = (colour, opacity) => colour + Math.round(opacity * 255).toString(16).padStart(2, "0");

const FONT = "11px system-ui, -apple-system, 'Segoe UI', sans-serif";

const WHOLE = [1, 2, 5].flatMap((n) => [...Array(12).keys()].map((power) => n * 10 ** power)).sort((a, b) => a - b);

/** The axes of a chart in the page's colours; x is counted in whole numbers if `whole`. */
function axes(label, { format = form, whole = false } = {}) {
  const shared = {
    stroke: () => css("--soft"),
    font: FONT,
    grid: { stroke: () => css("--grid"), width: 1 },
    ticks: { show: false },
    gap: 6,
  };
  const values = (_, splits) => splits.map((value) => (value === null ? "" : format(value)));
  return [
    { ...shared, label, labelFont: FONT, labelSize: 16, labelGap: 0, size: 24, grid: { show: false }, values: (_, s) => s.map(form), ...(whole ? { incrs: WHOLE } : {}) },
    { ...shared, size: (_, texts) => 16 + 6.4 * Math.max(2, ...(texts || []).map((text) => text.length)), values },
  ];
}

/** Let touches and arrow keys move a chart's cursor, and let the chart follow the width of its figure. */
function equip(figure, plot, height) {
  const follow = (event) => {
    const box = plot.over.getBoundingClientRect();
    plot.setCursor({ left: event.touches[0].clientX - box.left, top: box.height / 2 });
  };
  plot.over.addEventListener("touchstart", follow, { passive: true });
  plot.over.addEventListener("touchmove", follow, { passive: true });
  figure.onkeydown = (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || event.target !== figure) return;
    event.preventDefault();
    const last = plot.data[0].length - 1;
    const at = plot.cursor.idx ?? (move > 0 ? -1 : last + 1);
    const next = Math.min(last, Math.max(0, at + move));
    plot.setCursor({ left: plot.valToPos(plot.data[0][next], "x"), top: plot.over.clientHeight / 2 });
  };
  if (figure.watcher) figure.watcher.disconnect();
  figure.watcher = new ResizeObserver(() => {
    const width = figure.clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height });
  });
  figure.watcher.observe(figure);
}

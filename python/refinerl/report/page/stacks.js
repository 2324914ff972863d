"use strict";
// Shares over the steps of a run, stacked: outcomes of its rollouts, and the time of its phases.

const STACK_HEIGHT = 210;
const BARS = 80; // most steps that are drawn as bars; more are an area

const OUTCOME_COLOURS = {
  "no reward": "--none", compile_error: "--bad-1", runtime_error: "--bad-2", timeout: "--bad-3", memory_limit: "--bad-4",
  output_limit: "--bad-5", wrong_answer: "--middle", passed: "--good",
};

/** The colour of an outcome; those of other names go from bad to good in their order. */
function outcomeColour(name, place, count) {
  if (OUTCOME_COLOURS[name]) return css(OUTCOME_COLOURS[name]);
  const ramp = ["--bad-1", "--bad-2", "--bad-3", "--middle", "--good"];
  return css(ramp[count > 1 ? Math.round((place / (count - 1)) * (ramp.length - 1)) : ramp.length - 1]);
}

/** Draw parts of a whole over steps. `format(value, total)` writes a value of the legend. */
function stack(figure, { title, steps, names, values, colours, unit, top, format }) {
  if (figure.plot) figure.plot.destroy();
  const legend = make("div", { class: "legend" });
  figure.replaceChildren(make("figcaption", {}, make("b", {}, title)), legend);
  figure.tabIndex = 0;
  const sums = [];
  names.forEach((_, part) => sums.push(steps.map((_, i) => values[part][i] + (part ? sums[part - 1][i] : 0))));
  const thin = steps.length > BARS;
  const gap = steps.length > 1 ? Math.min(...steps.slice(1).map((step, i) => step - steps[i])) : 1;
  const paths = thin ? uPlot.paths.linear() : uPlot.paths.bars({ size: [0.86, 60] });
  const order = names.map((_, part) => part).reverse(); // the largest sum first, the others over it
  const read = (plot) => {
    const at = plot.cursor.idx ?? steps.length - 1;
    const total = sums.at(-1)[at];
    legend.replaceChildren(make("span", { class: "when" }, `step ${steps[at]}`), ...names.map((name, part) => {
      const swatch = make("i", { class: "swatch" });
      swatch.style.background = colours[part];
      return make("span", { "data-part": name }, swatch, `${visible(name).replaceAll("_", " ")} `, make("b", {}, format(values[part][at], total)));
    }));
  };
  figure.plot = new uPlot({
    width: figure.clientWidth || 500,
    height: STACK_HEIGHT,
    series: [{}, ...order.map((part) => ({ stroke: colours[part], fill: colours[part], width: 0, paths, points: { show: false } }))],
    axes: axes("step", { format: unit, whole: true }),
    scales: {
      x: { time: false, range: (_, low, high) => (thin ? [low, high] : [low - gap / 2, high + gap / 2]) },
      y: { range: (_, low, high) => [0, top ?? (high > 0 ? high * 1.05 : 1)] },
    },
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    hooks: { setCursor: [read] },
  }, [steps, ...order.map((part) => sums[part])], figure);
  equip(figure, figure.plot, STACK_HEIGHT);
  read(figure.plot);
}

const percent = (share) => `${Math.round(share * 100)}%`;

/** Draw both stacks of a run. */
function showStacks(number) {
  const run = data.runs[number];
  const outcomes = document.getElementById("outcomes");
  const phases = document.getElementById("phases");
  const { steps, names, counts } = run.outcomes;
  outcomes.hidden = !steps.length || !names.length;
  if (!outcomes.hidden) {
    const totals = steps.map((_, i) => counts.reduce((sum, of) => sum + of[i], 0) || 1);
    stack(outcomes, {
      title: "Outcomes of the responses",
      steps, names,
      values: counts.map((of) => of.map((count, i) => count / totals[i])),
      colours: names.map((name, place) => outcomeColour(name, place, names.length)),
      unit: percent, top: 1,
      format: (share) => percent(share),
    });
  }
  const rows = run.steps.map((step, i) => i).filter((i) => run.steps[i] > 0 && run.metrics["time/step"]?.[i]);
  phases.hidden = !rows.length;
  if (!phases.hidden) {
    const of = (phase) => rows.map((i) => run.metrics[`time/${phase}`]?.[i] || 0);
    const shown = data.phases.filter((phase) => of(phase).some((seconds) => seconds > 0));
    const values = shown.map(of);
    const other = rows.map((i, n) => Math.max(0, run.metrics["time/step"][i] - values.reduce((sum, phase) => sum + phase[n], 0)));
    stack(phases, {
      title: "Time of a step, seconds",
      steps: rows.map((i) => run.steps[i]),
      names: [...shown, "other"],
      values: [...values, other],
      colours: [...shown.map((phase) => css(`--phase-${data.phases.indexOf(phase) + 1}`)), css("--none")],
      unit: form,
      format: (seconds, total) => `${form(Number(seconds.toPrecision(3)))} s, ${percent(total ? seconds / total : 0)}`,
    });
  }
  document.getElementById("inside").hidden = outcomes.hidden && phases.hidden;
}

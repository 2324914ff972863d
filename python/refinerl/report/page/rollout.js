"use strict";
// One rollout: its rewards, its group, y → ỹ as a diff, side by side or as a heat map, the test that fails.

const HOTTEST = 6; // nats at which a token has the full colour
const view = { mode: "heat", logprobs: false };

/** The strength of a token's colour, from 0 to 1: small values differ more than large ones. */
const heat = (nats) => (nats === null ? 0 : Math.min(1, nats / HOTTEST) ** 0.6);

/** y → ỹ as elements: kept, deleted and inserted stretches. `side` shows one text only. */
function diffOf(row, side = "both") {
  const { text, refined } = row;
  const kinds = ["kept", "deleted", "inserted"];
  const found = [];
  let i = 0;
  let j = 0;
  // Lengths count code points, as Python does; slices of a string would count UTF-16 units.
  const y = [...text];
  const z = [...refined.text];
  refined.diff.forEach((length, place) => {
    const kind = kinds[place % 3];
    const part = kind === "inserted" ? z.slice(j, j + length) : y.slice(i, i + length);
    if (kind !== "inserted") i += length;
    if (kind !== "deleted") j += length;
    const hidden = (side === "y" && kind === "inserted") || (side === "z" && kind === "deleted");
    if (length && !hidden) found.push(make("span", { class: kind }, visible(part.join(""))));
  });
  return found;
}

/** Tokens, each with the colour of its value in nats; the value is shown in `readout`. */
function heatMap({ pieces, nats, kept }, { first = -1, what, readout, ended }) {
  const block = make("div", { class: "heat", role: "list", "aria-label": what });
  pieces.forEach((piece, i) => {
    const end = piece === "" && i === pieces.length - 1 && ended;
    const token = make("span", { class: "token", role: "listitem", tabindex: i ? -1 : 0, "data-nats": nats[i] ?? "" },
      end ? "end" : piece === "" ? "·" : visible(piece));
    token.style.setProperty("--heat", `${(heat(nats[i]) * 100).toFixed(1)}%`);
    if (kept && kept[i] === "0") token.classList.add("changed");
    if (i === first) token.classList.add("first");
    if (end) token.classList.add("end");
    token.title = `${form(nats[i])} nats`;
    const say = () => {
      const change = kept ? (i === first ? ", the first changed token" : kept[i] === "0" ? ", changed" : ", kept from y") : "";
      readout.replaceChildren(`token ${i + 1} of ${pieces.length} `, make("code", {}, end ? "end of text" : JSON.stringify(visible(piece))), " ", make("b", {}, `${form(nats[i])} nats`), change);
    };
    token.onmouseenter = say;
    token.onfocus = say;
    token.onclick = say;
    token.onkeydown = (event) => {
      const next = { ArrowRight: token.nextElementSibling, ArrowLeft: token.previousElementSibling }[event.key];
      if (!next) return;
      event.preventDefault();
      next.focus();
    };
    block.append(token);
  });
  return block;
}

/** The scale of a heat map. */
function scaleOf(what) {
  const steps = [0, 0.1, 0.5, 1, 2, 4, HOTTEST];
  return make("div", { class: "scale" }, `${what} `, ...steps.map((nats) => {
    const box = make("span", { class: "token" }, nats === HOTTEST ? `${nats} or more` : String(nats));
    box.style.setProperty("--heat", `${heat(nats) * 100}%`);
    return box;
  }), " nats");
}

/** Values of the tokens along the text, as the paper's figure 6. */
function profile(figure, { pieces, nats, kept }) {
  const at = pieces.map((_, i) => i + 1);
  const bars = uPlot.paths.bars({ size: [0.9, 24], align: 0 });
  const colours = [css("--line-1"), css("--hot")];
  const of = (flag) => nats.map((value, i) => (kept[i] === flag ? value : null));
  const plot = new uPlot({
    width: figure.clientWidth || 500,
    height: 120,
    series: [{}, ...["1", "0"].map((_, n) => ({ stroke: colours[n], fill: colours[n], width: 0, paths: bars, points: { show: false } }))],
    axes: axes("token of ỹ", { whole: true }),
    scales: { x: { time: false, range: (_, low, high) => [low - 0.5, high + 0.5] }, y: { range: (_, low, high) => [0, Math.max(0.5, high * 1.08)] } },
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    hooks: { setCursor: [(u) => figure.onat(u.cursor.idx)] },
  }, [at, of("1"), of("0")], figure);
  equip(figure, plot, 120);
  figure.plot = plot;
}

/** A reward with its outcome. */
function rewardOf(of) {
  if (of.reward === undefined) return make("span", { class: "none" }, "no reward");
  const passed = of.passed === undefined ? "" : `, ${percent(of.passed)} of the tests`;
  return make("span", { class: "reward" }, make("b", {}, signed(of.reward)), ` ${visible(of.outcome).replaceAll("_", " ")}${passed}`);
}

/** The siblings of a rollout with their rewards and advantages. */
function groupOf(row, siblings, open) {
  const known = siblings.flatMap((other) => [other.reward, other.refined?.reward]).filter((value) => value !== undefined);
  if (!known.length) return "";
  const low = Math.min(0, ...known);
  const high = Math.max(0, ...known);
  const span = high - low || 1;
  const bars = siblings.map((other) => {
    const bar = make("span", { class: "bar" });
    const place = (element, value) => {
      element.style.bottom = `${((Math.min(0, value) - low) / span) * 100}%`;
      element.style.height = `${(Math.abs(value) / span) * 100}%`;
    };
    if (other.reward !== undefined) {
      const fill = make("i", { class: other.reward < 0 ? "below" : "above" });
      place(fill, other.reward);
      bar.append(fill);
    }
    if (other.refined?.reward !== undefined) {
      const mark = make("i", { class: other.refined.accepted ? "mark accepted" : "mark" });
      mark.style.bottom = `${((other.refined.reward - low) / span) * 100}%`;
      bar.append(mark);
    }
    const zero = make("i", { class: "zero" });
    zero.style.bottom = `${(-low / span) * 100}%`;
    bar.append(zero);
    const advantage = other.advantage === undefined ? "–" : signed(Number(other.advantage.toFixed(2)));
    return make("button", { type: "button", class: "sibling", "aria-current": other === row ? "true" : null, title: `sample ${other.sample}`, onclick: () => open(other) },
      bar, make("span", {}, other.reward === undefined ? "–" : signed(Number(other.reward.toFixed(2)))), make("small", {}, `A ${advantage}`));
  });
  return make("section", { class: "group" }, make("h4", {}, "The group"),
    make("div", { class: "siblings" }, ...bars),
    make("p", { class: "hint" }, "Bars are rewards, marks the rewards of ỹ (filled: accepted). A is the mean advantage of the tokens in the update."));
}

/** How a refinement ended. */
function fateOf(refined) {
  const gain = refined.gain === undefined ? "" : ` gain ${signed(refined.gain)}, `;
  const fate = refined.accepted ? (refined.probe ? "would be accepted (a probe, which teaches nothing)" : "accepted") : "not accepted";
  return `${gain}${fate}, ${percent(refined.copied)} copied, ${form(refined.distance)} tokens inserted or deleted`;
}

/** A switch among the ways to see y → ỹ, of which `shown` is the one that is seen. */
function switches(row, shown, redraw) {
  const modes = { diff: "diff", side: "side by side", heat: "heat map" };
  const able = (mode) => (mode === "heat" ? row.refined?.tokens : row.refined);
  return make("div", { class: "switches", role: "group", "aria-label": "view" },
    ...Object.entries(modes).map(([mode, label]) => make("button", {
      type: "button", "data-mode": mode, disabled: !able(mode), "aria-pressed": String(mode === shown),
      onclick: () => { view.mode = mode; redraw(); },
    }, label)),
    row.tokens ? make("label", {}, make("input", { type: "checkbox", id: "logprobs", checked: view.logprobs, onchange: (event) => { view.logprobs = event.target.checked; redraw(); } }), " log-probabilities of y") : "");
}

/** What is left of a text that was cut. */
const cutNote = (of, step) => (of.cut ? make("p", { class: "hint" }, `${form(of.cut)} more characters in rollouts/step-${step}.jsonl`) : "");

/** Fill an element with a rollout. */
function showRollout(place, row, siblings, link, open) {
  const redraw = () => showRollout(place, row, siblings, link, open);
  const { refined } = row;
  const mode = !refined ? "plain" : view.mode === "heat" && !refined.tokens ? "diff" : view.mode;
  const readout = make("p", { class: "readout", "aria-live": "polite" }, "Point at a token, or move with ← and →.");
  const rewards = make("div", { class: "rewards" }, make("span", {}, make("i", { class: "name" }, "y "), rewardOf(row)),
    refined ? make("span", {}, make("i", { class: "name" }, "ỹ "), rewardOf(refined)) : "");
  const text = [];
  let figure = null;
  if (mode === "heat") {
    const { tokens } = refined;
    const map = heatMap(tokens, { first: refined.first, what: "cross-entropy of the tokens of ỹ", readout, ended: !refined.truncated });
    figure = make("figure", { class: "profile", tabindex: 0, "aria-label": "cross-entropy along ỹ" });
    figure.onat = (i) => {
      map.querySelectorAll(".at").forEach((token) => token.classList.remove("at"));
      if (i === null || i === undefined || !map.children[i]) return;
      map.children[i].classList.add("at");
      map.children[i].onfocus();
    };
    text.push(make("h4", {}, "ỹ, cross-entropy of its tokens"), scaleOf(""), make("div", { class: "text" }, map), readout, figure,
      make("p", { class: "hint" }, "−log π(token) by the policy that sampled y. Tokens with a line below are not in y; the first of them has a mark. Bars: kept tokens blue, changed ones red."));
  } else if (mode === "side") {
    text.push(make("div", { class: "two" },
      make("div", {}, make("h4", {}, "y"), make("div", { class: "text", dir: "auto" }, ...diffOf(row, "y"))),
      make("div", {}, make("h4", {}, "ỹ"), make("div", { class: "text", dir: "auto" }, ...diffOf(row, "z")))));
  } else if (mode === "diff") {
    text.push(make("h4", {}, "y → ỹ ", make("span", { class: "deleted" }, "deleted"), " ", make("span", { class: "inserted" }, "inserted")),
      make("div", { class: "text", dir: "auto" }, ...diffOf(row)));
  } else text.push(make("h4", {}, "y"), make("div", { class: "text", dir: "auto" }, visible(row.text)));
  text.push(cutNote(row, row.step), refined ? cutNote(refined, row.step) : "");
  if (view.logprobs && row.tokens) {
    const other = make("p", { class: "readout", "aria-live": "polite" }, "Point at a token, or move with ← and →.");
    text.push(make("h4", {}, "y, −log-probability of its tokens"), scaleOf(""),
      make("div", { class: "text" }, heatMap(row.tokens, { what: "log-probabilities of the tokens of y", readout: other, ended: !row.truncated })), other,
      make("p", { class: "hint" }, "By the engine that sampled y, at the sampling temperature."));
  }
  const failures = [["y", row], ["ỹ", refined]].filter(([, of]) => of?.failure);
  place.replaceChildren(
    make("header", {},
      make("h3", {}, `step ${row.step} · `, make("bdi", {}, visible(row.id)), ` · sample ${row.sample}`),
      make("a", { href: link, class: "link", title: "link to this rollout" }, "link")),
    rewards,
    refined ? make("p", { class: "fate" }, fateOf(refined)) : "",
    row.dropped ? make("p", { class: "hint" }, "The group was dropped: its rewards are equal.") : "",
    row.parts ? make("p", { class: "hint" }, Object.entries(row.parts).map(([name, value]) => `${visible(name)} ${signed(value)}`).join(" · ")) : "",
    make("details", { open: true }, make("summary", {}, "question x"), make("div", { class: "text question", dir: "auto" }, visible(row.question))),
    refined || row.tokens ? switches(row, mode, redraw) : "",
    ...text,
    ...failures.map(([name, of]) => make("details", { open: name === "y" }, make("summary", {}, `first failing test of ${name}`), make("pre", { class: "failure" }, visible(of.failure)))),
    groupOf(row, siblings, open),
  );
  if (figure) profile(figure, refined.tokens);
}

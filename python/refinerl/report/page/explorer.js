"use strict";
// The list of rollouts: filters, order, keys, and links to a rollout. Only the rows that are seen are elements.

const ROW = 58; // height of a row in pixels, as in page.css
const explorer = { run: 0, rows: [], at: -1 };
const field = (name) => document.getElementById(name);

/** Mean cross-entropy of the tokens of ỹ; −∞ where it was not measured. */
function costOf(row) {
  const nats = row.refined?.tokens?.nats.filter((value) => value !== null);
  return nats?.length ? nats.reduce((sum, value) => sum + value, 0) / nats.length : -Infinity;
}

const ORDERS = {
  gain: (row) => row.refined?.gain ?? -Infinity,
  step: (row) => -row.step,
  reward: (row) => row.reward ?? -Infinity,
  cost: costOf,
};

const KINDS = {
  all: () => true,
  accepted: (row) => row.refined?.accepted,
  rejected: (row) => row.refined && !row.refined.accepted,
  none: (row) => !row.refined,
  measured: (row) => row.refined?.tokens,
};

/** Filter and sort, then show the list from its start. */
function filter() {
  const all = rolloutsOf(explorer.run);
  const from = field("from").value === "" ? -Infinity : Number(field("from").value);
  const to = field("to").value === "" ? Infinity : Number(field("to").value);
  const outcome = field("outcome").value;
  const kind = KINDS[field("kind").value];
  const words = field("search").value.toLowerCase();
  const order = ORDERS[field("sort").value];
  const has = (text) => text.toLowerCase().includes(words);
  const chosen = explorer.rows[explorer.at];
  explorer.rows = all.filter((row) =>
    row.step >= from && row.step <= to && (outcome === "" || (row.outcome ?? "no reward") === outcome) && kind(row) &&
    (words === "" || has(row.text) || has(row.question) || has(row.id) || (row.refined && has(row.refined.text))));
  const value = new Map(explorer.rows.map((row) => [row, order(row)]));
  explorer.rows.sort((a, b) => (value.get(a) === value.get(b) ? 0 : value.get(a) < value.get(b) ? 1 : -1));
  explorer.at = explorer.rows.indexOf(chosen);
  const total = data.runs[explorer.run].rollouts;
  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  field("count").value = explorer.rows.length === all.length ? count(all.length, "rollout") : `${explorer.rows.length.toLocaleString("en")} of ${count(all.length, "rollout")}`;
  if (all.length < total) field("count").value += ` (of ${total.toLocaleString("en")} in the run)`;
  const list = field("list");
  list.firstElementChild.style.height = `${explorer.rows.length * ROW}px`;
  list.scrollTop = 0;
  drawList();
}

/** Make the elements of the rows in sight. */
function drawList() {
  const list = field("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(explorer.rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const made = explorer.rows.slice(first, last).map((row, i) => rowOf(row, first + i));
  list.firstElementChild.replaceChildren(...made);
  if (explorer.at >= 0) list.setAttribute("aria-activedescendant", `row-${explorer.at}`);
  else list.removeAttribute("aria-activedescendant");
}

/** A row of the list. */
function rowOf(row, place) {
  const { refined } = row;
  const gain = refined?.gain;
  const kind = gain === undefined ? "none" : gain > 0 ? "gained" : gain < 0 ? "lost" : "none";
  const outcome = (of) => (of.outcome === undefined ? "no reward" : visible(of.outcome).replaceAll("_", " "));
  const told = `step ${row.step} · ${outcome(row)}${refined ? ` → ${outcome(refined)}` : ""}${refined?.accepted ? " · accepted" : ""}${refined?.tokens ? " · heat map" : ""}`;
  const made = make("div", { class: "row", role: "option", id: `row-${place}`, "data-key": row.key, "aria-selected": String(place === explorer.at), onclick: () => choose(place) },
    make("b", { class: `gain ${kind}` }, gain === undefined ? (row.reward === undefined ? "–" : signed(Number(row.reward.toFixed(2)))) : signed(Number(gain.toFixed(2)))),
    make("span", { class: "told" }, told),
    make("span", { class: "snippet" }, visible(row.question.trim().split("\n")[0].slice(0, 120))));
  made.style.top = `${place * ROW}px`;
  return made;
}

/** The stable link of a rollout. */
const linkOf = (row) => `#rollout/${[data.runs[explorer.run].label, row.step, row.id, row.sample].map((part) => encodeURIComponent(wellFormed(String(part)))).join("/")}`;

/** Show a rollout, and put its link into the address. */
function open(row, { scroll = true } = {}) {
  explorer.at = explorer.rows.indexOf(row);
  const list = field("list");
  if (explorer.at >= 0 && scroll) {
    const top = explorer.at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }
  drawList();
  const siblings = rolloutsOf(explorer.run).filter((other) => other.step === row.step && other.id === row.id).sort((a, b) => a.sample - b.sample);
  const link = linkOf(row);
  history.replaceState(null, "", link);
  showRollout(field("rollout"), row, siblings, link, (other) => open(other));
}

/** Show the rollout at a place of the list. */
function choose(place) {
  if (place < 0 || place >= explorer.rows.length) return;
  open(explorer.rows[place]);
  if (matchMedia("(max-width: 860px)").matches) field("rollout").scrollIntoView({ block: "start" });
}

/** The four parts of the address's link; null if it has none, or one that was cut when it was sent. */
function linked() {
  if (!location.hash.startsWith("#rollout/")) return null;
  const parts = location.hash.slice("#rollout/".length).split("/");
  if (parts.length !== 4) return null;
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return null;
  }
}

/** Show the rollout of the address; return false if it has none. */
function follow() {
  const parts = linked();
  if (!parts) return false;
  const [label, step, id, sample] = parts;
  const run = data.runs.findIndex((one) => one.label === label);
  if (run < 0) return false;
  if (run !== explorer.run) selectRun(run);
  const row = rolloutsOf(run).find((one) => one.key === `${step}/${id}/${sample}`);
  if (!row) {
    field("rollout").replaceChildren(make("p", { class: "hint" }, `This page does not hold step ${visible(step)}, prompt ${visible(id)}, sample ${visible(sample)}. The run’s rollouts/ may.`));
    return true;
  }
  if (!explorer.rows.includes(row)) {
    field("filters").reset();
    filter();
  }
  open(row);
  field("explorer").scrollIntoView();
  return true;
}

/** Show another run inside. */
function selectRun(run) {
  explorer.run = run;
  explorer.at = -1;
  const select = field("which").querySelector("select");
  select.value = String(run);
  showStacks(run);
  const all = rolloutsOf(run);
  field("explorer").hidden = !all.length;
  const names = data.runs[run].outcomes.names;
  const outcomes = [...new Set(all.map((row) => row.outcome ?? "no reward"))];
  outcomes.sort((a, b) => names.indexOf(a) - names.indexOf(b));
  field("outcome").replaceChildren(make("option", { value: "" }, "any"), ...outcomes.map((name) => make("option", { value: name }, visible(name).replaceAll("_", " "))));
  field("rollout").replaceChildren();
  if (all.length) filter();
}

/** Connect the filters and the list, and show the first rollout or that of the address. */
function showExplorer() {
  const which = field("which");
  which.hidden = data.runs.length === 1;
  const select = which.querySelector("select");
  select.append(...data.runs.map((run, number) => make("option", { value: number }, run.label)));
  select.onchange = () => {
    selectRun(Number(select.value));
    if (explorer.rows.length) open(explorer.rows[0]);
  };
  const filters = field("filters");
  filters.onsubmit = (event) => event.preventDefault();
  filters.oninput = filter;
  const list = field("list");
  list.onscroll = drawList;
  list.onkeydown = (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(Math.min(explorer.rows.length - 1, Math.max(0, explorer.at + moves[event.key])));
  };
  selectRun(0);
  if (!follow() && explorer.rows.length) {
    open(explorer.rows[0]);
    history.replaceState(null, "", location.pathname + location.search);
  }
  addEventListener("hashchange", follow);
}

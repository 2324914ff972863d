"use strict";
// Everything is shown here; keys and the theme.

const root = document.documentElement;

/** Go from the system's theme to the other one, and back. */
function turn() {
  root.dataset.theme = isDark() ? "light" : "dark";
  recolour();
}

/** Draw anew what has its colours from scripts. */
function recolour() {
  showLegend();
  drawCurves();
  showStacks(explorer.run);
  if (explorer.at >= 0) open(explorer.rows[explorer.at], { scroll: false });
}

showCurves();
showExplorer();
drawCurves();

field("theme").onclick = turn;
field("help").onclick = () => field("keys").showModal();
systemIsDark.addEventListener("change", recolour);

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key !== "Escape") return;
    event.target.blur();
    if (event.target === field("search")) {
      field("search").value = "";
      filter();
    }
    return;
  }
  const mode = { d: "diff", s: "side", h: "heat" }[event.key];
  if (event.key === "j") choose(explorer.at + 1);
  else if (event.key === "k") choose(explorer.at - 1);
  else if (event.key === "t") turn();
  else if (event.key === "?") field("keys").showModal();
  else if (event.key === "/") {
    event.preventDefault();
    field("search").focus();
  } else if (mode) field("rollout").querySelector(`[data-mode=${mode}]:not(:disabled)`)?.click();
  else if (event.key === "l") field("logprobs")?.click();
});

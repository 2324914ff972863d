"""The summary that a run ends with: metrics, held-out results, a refined example, files, and the next commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from refinerl.alignment import align
from refinerl.data.terminal import safe
from refinerl.report.metrics import evaluations, read_metrics, training
from refinerl.report.reading import read_rollouts
from refinerl.report.rows import RolloutRow
from refinerl.report.windows import LEAST, Mean, windows

SHOWN = {
    "reward/mean": "mean reward",
    "reward/pass_rate": "share of tests passed",
    "reward/group_std": "spread of rewards in a group",
    "policy/kl_to_reference": "KL to the reference",
    "policy/entropy": "entropy",
    "constraint/ce": "cross-entropy on accepted ỹ",
    "refiner/ce": "cross-entropy on ỹ of the probe",
    "refiner/improved_ratio": "share of y that ỹ improved",
    "refiner/copy_ratio": "share of ỹ copied from y",
    "refiner/beyond_best_sibling": "accepted ỹ better than their group",
    "refiner/in_dead_groups": "accepted ỹ in groups without a signal",
    "time/step": "seconds per step",
}
"""Metrics of the table, with their labels; KL, entropy and cross-entropy are in nats per token."""
WIDE = 100
"""Columns of a console that has room for the metrics' names."""
HELD_OUT = {"evaluate/pass@1": "Held-out success", "evaluate/reward": "Held-out mean reward"}


def show(folder: Path, console: Console, decode: Callable[[Sequence[int]], str]) -> None:
    """Print the summary of a run's folder."""
    every = read_metrics(folder)
    metrics = training(every)
    if metrics:
        console.print(table(metrics, names=console.width >= WIDE))
        if len(metrics) < 2 * LEAST:
            console.print(
                f"Too few steps to tell a change: {len(metrics)}, and it takes two windows of {LEAST}.", highlight=False
            )
        for line in (*held_out(every), tokens_per_improvement(folder, metrics)):
            if line:
                console.print(line, highlight=False)
    found = best_example(folder)
    if found is not None:
        title = escape(safe(f"step {found.step}, prompt {found.prompt.id}"))
        console.print(example(found, decode, title=title, plain=not console.is_terminal))
    elif any("refiner/improved_ratio" in row for row in metrics):
        console.print(why_no_example(folder, metrics), highlight=False)
    console.print(_places(folder), highlight=False, markup=False, soft_wrap=True)
    console.print(_next(folder, evaluated=bool(evaluations(every))), highlight=False, markup=False, soft_wrap=True)


def tokens_per_improvement(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence with the cost of the run's improvements in tokens; empty if no refiner wrote any."""
    tokens = sum(row.get("refiner/tokens") or 0 for row in metrics)
    if not tokens:
        return ""
    rows = [(row.probe is not None, row.as_probe().gain) for row in read_rollouts(folder)]
    probed = any(probe for probe, _ in rows)
    improved = sum(gain is not None and gain > 0 for probe, gain in rows if probe or not probed)
    taught = " It was a probe: none of this taught the policy." if probed else ""
    if not improved:
        return f"The refiner wrote {tokens:,.0f} tokens and improved no response.{taught}"
    responses = "response" if improved == 1 else "responses"
    price = f"{tokens / improved:,.0f} tokens per improvement"
    return f"The refiner wrote {tokens:,.0f} tokens and improved {improved:,} {responses}: {price}.{taught}"


def best_example(folder: Path) -> RolloutRow | None:
    """Find the rollout whose refinement, or probe, gained the most reward; accepted ones come first."""
    rows = (row.as_probe() for row in read_rollouts(folder))
    return max((row for row in rows if row.gain is not None), key=merit, default=None)


def why_no_example(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> str:
    """Say why a run with a refiner has no scored refinement."""
    rows = list(read_rollouts(folder))
    made = sum(row.as_probe().refinement is not None for row in rows)
    if made:
        return f"{made:,} refinements were made, and none of them has a reward."
    if all(row.reward is None for row in rows):
        return "No refinement was made: no response had a reward."
    if not any(row.selected for row in rows):
        return "No refinement was made: in every group all responses had the same reward, so no group was kept."
    for metric, reason in {
        "refiner/skipped_by_choice": "responses were left out by refiner.where or refiner.budget",
        "refiner/failed": "responses got no reply from the refiner's server",
    }.items():
        if count := sum(row.get(metric) or 0 for row in metrics):
            return f"No refinement was made: {count:,.0f} {reason}."
    kept = [row.reward.value for row in rows if row.selected and row.reward is not None]
    if kept and min(kept) == max(kept):
        return f"No refinement was made: every response that was kept had the same reward, {kept[0]:g}."
    return (
        "No refinement was made: responses with the highest reward, without a reward, or too long for the refiner are "
        "not refined, and there were no others."
    )


def merit(row: RolloutRow) -> tuple[bool, float, float]:
    """Sort key of examples: accepted, then the largest gain, then the most copied."""
    refinement = row.refinement
    if refinement is None or row.gain is None:
        return False, -math.inf, 0.0
    return refinement.accepted, row.gain, refinement.copy_ratio


def table(rows: Sequence[Mapping[str, Any]], *, names: bool = True) -> Table:
    """Make the table of means over the first and the last training steps, with their standard errors."""
    parts = windows(rows)
    made = Table(title="Means over steps, ± standard error", title_justify="left", box=None, pad_edge=False)
    made.add_column("metric", no_wrap=True)
    for window in parts:
        made.add_column(window.label, justify="right", no_wrap=True)
    if names:
        made.add_column("name", style="dim", no_wrap=True)
    for name, label in SHOWN.items():
        means = [window.mean(name) for window in parts]
        if any(row.get(name) is not None for row in rows):
            made.add_row(label, *map(form, means), *([name] if names else []))
    return made


def form(mean: Mean | None) -> str:
    """Write a mean with its standard error, to two digits of the error; – for none."""
    if mean is None:
        return "–"
    if mean.error is None:
        return f"{mean.value:.3g}"
    if mean.error <= abs(mean.value) / 1000:
        return f"{mean.value:.4g} ± {mean.error:.1g}"
    digits = max(0, 1 - math.floor(math.log10(mean.error)))  # two digits of the error, and as many of the mean
    return f"{mean.value:.{digits}f} ± {mean.error:.{digits}f}"


def held_out(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each held-out metric: its value at the start, at its best, and at the end.

    The best is of the steps after training began, whose checkpoint is kept; of equals it is the first.
    """
    lines = []
    for name, label in HELD_OUT.items():
        points = [row for row in metrics if row.get(name) is not None]
        if len(points) < 2:
            continue
        first, *later = points
        best = max(later, key=lambda row: float(row[name]))
        start = first["step"]
        shown = [f"{_score(name, first)} {f'after step {start}' if start else 'before training'}"]
        if best is not later[-1]:
            shown.append(f"{_score(name, best)} at best, after step {best['step']}")
        shown.append(f"{_score(name, later[-1])} after step {later[-1]['step']}")
        lines.append(f"{label} ({name}): {' → '.join(shown)}")
    return lines


def _score(name: str, row: Mapping[str, Any]) -> str:
    """Format a held-out metric of a row with its 95 % interval, which rows of an earlier version lack."""
    form = "{:.1%}" if name == "evaluate/pass@1" else "{:.3g}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({form.format(low)} to {form.format(high)})"
    return form.format(row[name]) + interval


def example(row: RolloutRow, decode: Callable[[Sequence[int]], str], *, title: str, plain: bool = False) -> Panel:
    """Draw a rollout with a scored refinement: the question, y → ỹ as a diff (`plain` as in `diff`), the rewards.

    Raises:
        ValueError: the response or its refinement has no reward.
    """
    refinement, before = row.refinement, row.reward
    after = None if refinement is None else refinement.reward
    if refinement is None or before is None or after is None:
        raise ValueError("row must have a reward and a refinement with a reward")
    if refinement is row.probe:
        said = f"{'accepted' if refinement.accepted else 'not accepted'}: a probe, which teaches nothing"
    elif refinement.accepted:
        said = "accepted: it teaches the policy"
    elif after.value > before.value:  # an empty one, or not perfect where only perfect ones count
        said = "better, but not accepted, so it teaches nothing"
    else:
        said = "not better, so it teaches nothing"
    verdict = f"reward {before.value:+.2f} ({before.outcome}) → {after.value:+.2f} ({after.outcome}), {said}"
    body = Group(
        Text(safe(row.prompt.text.strip()), style="dim"),
        Text(),
        Text.assemble(
            ("y → ỹ  ", "bold"), _mark("deleted", "deleted", plain), "  ", _mark("inserted", "inserted", plain)
        ),
        Text(),
        diff(row.completion.token_ids, refinement.completion.token_ids, decode, plain=plain),
        Text(),
        Text(verdict, style="bold"),
    )
    return Panel(body, title=title, title_align="left")


def diff(
    original: Sequence[int], refined: Sequence[int], decode: Callable[[Sequence[int]], str], *, plain: bool = False
) -> Text:
    """Make one text of y and ỹ: kept tokens plain, deleted ones red and struck through, inserted ones green.

    `plain` marks them as wdiff does, [-deleted-] and {+inserted+}, for output without colours.
    """
    (alignment,) = align([original], [refined])
    text = Text()
    i = j = 0
    for kept, i_end, j_end in runs(alignment.original_kept, alignment.refined_kept):
        if kept:
            text.append(safe(decode(original[i:i_end])))
        else:
            deleted, inserted = safe(decode(original[i:i_end])), safe(decode(refined[j:j_end]))
            text.append(_mark("deleted", deleted, plain)).append(_mark("inserted", inserted, plain))
        i, j = i_end, j_end
    return text


def _mark(kind: Literal["deleted", "inserted"], words: str, plain: bool) -> Text:
    """Mark words of a diff, by colour or as wdiff does."""
    if kind == "deleted":
        return Text(f"[-{words}-]" if plain and words else words, style="red strike")
    return Text(f"{{+{words}+}}" if plain and words else words, style="green")


def runs(original_kept: Any, refined_kept: Any) -> Iterator[tuple[bool, int, int]]:
    """Split an alignment into runs, each (kept, its end in y, its end in ỹ); runs that are not kept were replaced."""
    i = j = 0
    while i < len(original_kept) or j < len(refined_kept):
        start = (i, j)
        while i < len(original_kept) and j < len(refined_kept) and original_kept[i] and refined_kept[j]:
            i, j = i + 1, j + 1
        if (i, j) != start:
            yield True, i, j
        start = (i, j)
        while i < len(original_kept) and not original_kept[i]:
            i += 1
        while j < len(refined_kept) and not refined_kept[j]:
            j += 1
        if (i, j) != start:
            yield False, i, j


def _places(folder: Path) -> str:
    return "\n".join(
        [
            f"The run's files are in {folder}:",
            "  metrics.jsonl        a row for each step",
            "  rollouts/            every x, y and ỹ with their rewards",
            "  config.yaml          the resolved configuration",
            "  checkpoint-N/        continue with --resume",
            "  final/               the model, for from_pretrained",
        ]
    )


def _next(folder: Path, *, evaluated: bool) -> str:
    """Name the commands that follow a run; a run of programs without an evaluation can be measured on a benchmark."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) or {}
    place = shlex.quote(str(folder))
    commands = {f"python -m refinerl.report {place}": "the curves, and an explorer of the rollouts, as a page"}
    if not evaluated and config.get("task", {}).get("name") == "code":
        commands[f"python -m refinerl.evaluate {place}/final --benchmark humaneval+"] = "pass@1 of the model"
    steps = config.get("trainer", {}).get("steps")
    more = f" trainer.steps={2 * steps}" if steps else ""
    commands[f"python -m refinerl.train --output-dir {place} --resume{more}"] = "more steps"
    return "Next:\n" + "\n".join(f"  {command}   # {effect}" for command, effect in commands.items())

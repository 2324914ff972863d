"""The summary that a run ends with: its metrics, one refined example, and the files that it wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from refinerl.alignment import align
from refinerl.report.rows import RolloutRow, read_metrics, read_rollouts, training

SHOWN = {
    "reward/mean": "mean reward",
    "reward/pass_rate": "share of tests passed",
    "reward/group_std": "spread of rewards in a group",
    "policy/kl_to_reference": "KL to the reference",
    "policy/entropy": "entropy",
    "constraint/ce": "cross-entropy on accepted ỹ",
    "refiner/improved_ratio": "share of y that ỹ improved",
    "refiner/copy_ratio": "share of ỹ copied from y",
    "refiner/beyond_best_sibling": "accepted ỹ better than their group",
    "refiner/in_dead_groups": "accepted ỹ in groups without a signal",
    "time/step": "seconds per step",
}
"""Metrics of the table, with their labels; KL, entropy and cross-entropy are in nats per token."""


def show(folder: Path, console: Console, decode: Callable[[Sequence[int]], str]) -> None:
    """Print the summary of a run's folder."""
    metrics = training(read_metrics(folder))
    if metrics:
        console.print(_table(metrics))
        price = tokens_per_improvement(folder, metrics)
        if price:
            console.print(price, highlight=False)
    found = best_example(folder)
    if found is not None:
        title = escape(f"step {found.step}, prompt {found.prompt.id}")
        console.print(example(found, decode, title=title, plain=not console.is_terminal))
    elif any("refiner/improved_ratio" in row for row in metrics):
        console.print("No refinement was made: every response already had the highest reward, or none was scored.")
    console.print(_places(folder), highlight=False)


def tokens_per_improvement(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence with the cost of the run's improvements in tokens; empty if no refiner wrote any."""
    tokens = sum(row.get("refiner/tokens") or 0 for row in metrics)
    if not tokens:
        return ""
    improved = sum(row.gain is not None and row.gain > 0 for row in read_rollouts(folder))
    if not improved:
        return f"The refiner wrote {tokens:,.0f} tokens and improved no response."
    responses = "response" if improved == 1 else "responses"
    price = f"{tokens / improved:,.0f} tokens per improvement"
    return f"The refiner wrote {tokens:,.0f} tokens and improved {improved:,} {responses}: {price}."


def best_example(folder: Path) -> RolloutRow | None:
    """Find the rollout whose refinement gained the most reward; accepted refinements come first."""
    return max((row for row in read_rollouts(folder) if row.gain is not None), key=merit, default=None)


def merit(row: RolloutRow) -> tuple[bool, float, float]:
    """Sort key of examples: accepted, then the largest gain, then the most copied."""
    refinement = row.refinement
    if refinement is None or row.gain is None:
        return False, -math.inf, 0.0
    return refinement.accepted, row.gain, refinement.copy_ratio


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Metrics of the run", title_justify="left", box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("first", justify="right")
    table.add_column("last", justify="right")
    table.add_column("name", style="dim", no_wrap=True)
    for name, label in SHOWN.items():
        if any(row.get(name) is not None for row in rows):
            table.add_row(label, _form(rows[0].get(name)), _form(rows[-1].get(name)), name)
    return table


def _form(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def example(row: RolloutRow, decode: Callable[[Sequence[int]], str], *, title: str, plain: bool = False) -> Panel:
    """Draw a rollout with a scored refinement: the question, y → ỹ as a diff (`plain` as in `diff`), the rewards.

    Raises:
        ValueError: the response or its refinement has no reward.
    """
    refinement, before = row.refinement, row.reward
    after = None if refinement is None else refinement.reward
    if refinement is None or before is None or after is None:
        raise ValueError("row must have a reward and a refinement with a reward")
    if refinement.accepted:
        said = "accepted: it teaches the policy"
    elif after.value > before.value:  # an empty one, or not perfect where only perfect ones count
        said = "better, but not accepted, so it teaches nothing"
    else:
        said = "not better, so it teaches nothing"
    verdict = f"reward {before.value:+.2f} ({before.outcome}) → {after.value:+.2f} ({after.outcome}), {said}"
    body = Group(
        Text(row.prompt.text.strip(), style="dim"),
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
            text.append(decode(original[i:i_end]))
        else:
            deleted, inserted = decode(original[i:i_end]), decode(refined[j:j_end])
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

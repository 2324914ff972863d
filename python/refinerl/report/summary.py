"""A run's closing words: what the metrics did, one refined example, where everything lies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from refinerl.alignment import align

SHOWN = {
    "reward/mean": "mean reward",
    "reward/pass_rate": "share of tests passed",
    "reward/group_std": "spread of rewards in a group",
    "policy/kl_to_reference": "KL to the reference",
    "policy/entropy": "entropy",
    "constraint/ce": "cross-entropy on accepted ỹ",
    "refiner/improved_ratio": "share of y that ỹ improved",
    "refiner/copy_ratio": "share of ỹ copied from y",
    "time/step": "seconds per step",
}
"""What the table shows; KL, entropy and cross-entropy are nats per token."""


def show(folder: Path, console: Console, decode: Callable[[Sequence[int]], str]) -> None:
    """Prints the summary of a run's folder."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if rows:
        console.print(_table(rows))
    found = best_example(folder)
    if found is not None:
        title = escape(f"step {found['step']}, prompt {found['prompt']['id']}")
        console.print(example(found, decode, title=title, plain=not console.is_terminal))
    elif any("refiner/improved_ratio" in row for row in rows):
        console.print("No refinement was made: every response already had the highest reward, or none was scored.")
    console.print(_places(folder), highlight=False)


def best_example(folder: Path) -> dict[str, Any] | None:
    """The rollout whose refinement gained the most reward; accepted ones come first."""
    candidates = [row for row in _rollouts(folder) if row["refinement"] is not None and row["refinement"]["reward"]]
    return max(candidates, key=_merit, default=None)


def _rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "rollouts").glob("step-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _merit(row: dict[str, Any]) -> tuple[bool, float, float]:
    refinement = row["refinement"]
    gain = refinement["reward"]["value"] - row["reward"]["value"]
    return refinement["accepted"], gain, refinement["copy_ratio"]


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="What the run did", title_justify="left", box=None, pad_edge=False)
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


def example(row: dict[str, Any], decode: Callable[[Sequence[int]], str], *, title: str, plain: bool = False) -> Panel:
    """A row of rollouts/ with a refinement: the question, y → ỹ as a diff, what it earned. `plain` as in `diff`."""
    refinement = row["refinement"]
    before, after = row["reward"], refinement["reward"]
    if refinement["accepted"]:
        said = "accepted: it teaches the policy"
    elif after["value"] > before["value"]:  # an empty one, or not perfect where only perfect ones count
        said = "better, but not accepted, so it teaches nothing"
    else:
        said = "not better, so it teaches nothing"
    verdict = (
        f"reward {before['value']:+.2f} ({before['outcome']}) → {after['value']:+.2f} ({after['outcome']}), {said}"
    )
    body = Group(
        Text(row["prompt"]["text"].strip(), style="dim"),
        Text(),
        Text.assemble(
            ("y → ỹ  ", "bold"), _mark("deleted", "deleted", plain), "  ", _mark("inserted", "inserted", plain)
        ),
        Text(),
        diff(row["completion"]["token_ids"], refinement["completion"]["token_ids"], decode, plain=plain),
        Text(),
        Text(verdict, style="bold"),
    )
    return Panel(body, title=title, title_align="left")


def diff(
    original: Sequence[int], refined: Sequence[int], decode: Callable[[Sequence[int]], str], *, plain: bool = False
) -> Text:
    """y and ỹ as one text: kept tokens plain, deleted ones red and struck through, inserted ones green.

    `plain` marks them as wdiff does, [-deleted-] and {+inserted+}, for places without colours.
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
    """Words of a diff in their colour, or in wdiff's marks."""
    if kind == "deleted":
        return Text(f"[-{words}-]" if plain and words else words, style="red strike")
    return Text(f"{{+{words}+}}" if plain and words else words, style="green")


def runs(original_kept: Any, refined_kept: Any) -> Iterator[tuple[bool, int, int]]:
    """Ends of alternating runs: kept tokens on both sides, then deleted and inserted ones."""
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
            f"Everything lies in {folder}:",
            "  metrics.jsonl        a row for each step",
            "  rollouts/            every x, y and ỹ with their rewards",
            "  config.yaml          the resolved configuration",
            "  checkpoint-N/        continue with --resume",
            "  final/               the model, as from_pretrained reads it",
        ]
    )

"""A refinement in a few lines: its rewards, and the lines of y that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from rich.text import Text

from refinerl.data.terminal import safe
from refinerl.report.rows import RolloutRow

LINES = 4
"""Changed lines that are shown."""
LONGEST = 500
"""Characters of a line that are read: a terminal shows fewer."""
COMPARED = 200
"""Lines of each text that are compared."""


def folded(row: RolloutRow) -> list[Text]:
    """Fold a refinement into a title and at most `LINES` changed lines. What a terminal would obey is escaped."""
    refinement, reward = row.refinement, row.reward
    if refinement is None:
        return []
    rewards = ["none" if scored is None else f"{scored.value:+.2f}" for scored in (reward, refinement.reward)]
    tokens = "1 token" if refinement.distance == 1 else f"{refinement.distance} tokens"
    title = (
        f"step {row.step}: reward {rewards[0]} → {rewards[1]}, {tokens} changed, "
        f"{refinement.copy_ratio:.0%} of ỹ kept from y"
    )
    changed = list(_changed(row.completion.text, refinement.completion.text))
    lines = [Text(f"{mark} {line}", style="red" if mark == "-" else "green") for mark, line in changed[:LINES]]
    if len(changed) > LINES:
        lines.append(Text(f"… {len(changed) - LINES} more changed lines", style="dim"))
    return [Text(title, style="bold"), *lines]


def _changed(before: str, after: str) -> Iterator[tuple[str, str]]:
    old, new = _lines(before), _lines(after)
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            yield from (("-", line) for line in old[a:b])
            yield from (("+", line) for line in new[c:d])


def _lines(text: str) -> list[str]:
    return [safe(line[:LONGEST]) for line in text.rstrip().split("\n", COMPARED)[:COMPARED]]

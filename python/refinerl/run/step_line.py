"""The metrics that a run shows for each step, and the line that it prints, as long as the terminal is wide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from rich.text import Text

from refinerl.data.terminal import duration

LEAST = 80
"""Columns that a line may always take."""


class Part(NamedTuple):
    """A metric of the line and of the live view."""

    label: str
    metric: str
    form: str
    rank: int
    """Parts with the lowest rank come first where there is not enough room for all."""


PARTS = (
    Part("reward", "reward/mean", "{:+.3f}", 0),
    Part("pass", "reward/pass_rate", "{:.0%}", 6),
    Part("KL", "policy/kl_to_reference", "{:.4f}", 5),
    Part("entropy", "policy/entropy", "{:.2f}", 8),
    Part("improved", "refiner/improved_ratio", "{:.0%}", 2),
    Part("CE", "constraint/ce", "{:.3f}", 4),
    Part("CE of the probe", "refiner/ce", "{:.3f}", 7),
    Part("held out", "evaluate/pass@1", "{:.1%}", 1),
    Part("held-out reward", "evaluate/reward", "{:+.3f}", 3),
    Part("constraint", "time/constraint_share", "{:.0%} of the time", 9),
    Part("tokens a second", "time/tokens_per_second", "{:,.0f}", 10),
)

UNSCORED = Part("no held-out row has a reward", "evaluate/reward", "", 1)
"""The words in place of held-out results that have no value."""


def step_line(row: Mapping[str, float], step: int, steps: int, left: float | None, width: int) -> Text:
    """Make the line of a step: the most important metrics that fit, its seconds, and the time that the run needs.

    Args:
        row: the step's metrics; those that are absent or NaN are left out. A NaN as `evaluate/reward` means that no
            held-out row has a reward, which is said.
        left: seconds until the run's end; None if they are not known.
        width: columns of the terminal.

    >>> row = {"reward/mean": 0.5, "refiner/improved_ratio": 0.25, "time/step": 12.34}
    >>> step_line(row, 3, 10, 86.0, 80).plain
    'step 3/10  reward +0.500  improved 25%  12.3 s, 1 min left'
    """
    head = f"step {step}/{steps}"
    times = [f"{row['time/step']:.1f} s"] if "time/step" in row else []
    if left is not None and step < steps:
        times.append(f"{duration(left)} left")
    values = {part: value(row, part) for part in PARTS}
    known = [part for part in PARTS if values[part]]
    words = {part: f"{part.label} {values[part]}" for part in known}
    if math.isnan(row.get("evaluate/reward", 0.0)):
        known.append(UNSCORED)
        words[UNSCORED] = UNSCORED.label
    room = max(width, LEAST) - len(head) - (len(", ".join(times)) + 2 if times else 0)
    shown: set[Part] = set()
    for part in sorted(known, key=lambda part: part.rank):
        if len(words[part]) + 2 <= room:
            shown.add(part)
            room -= len(words[part]) + 2
    text = "  ".join([*(words[part] for part in known if part in shown), *([", ".join(times)] if times else [])])
    return Text.assemble((head, "bold"), "  ", text)


def value(row: Mapping[str, float], part: Part) -> str:
    """Format a step's value of a metric, with its 95 % interval if it has one; empty without a value.

    The interval is written as ± where both sides look the same, else by its ends.

    >>> row = {"evaluate/pass@1": 0.5, "evaluate/pass@1_low": 0.4, "evaluate/pass@1_high": 0.6}
    >>> value(row, Part("held out", "evaluate/pass@1", "{:.1%}", 1))
    '50.0% ± 10.0%'
    """
    number, low, high = (row.get(f"{part.metric}{end}", math.nan) for end in ("", "_low", "_high"))
    if math.isnan(number):
        return ""
    text = part.form.format(number)
    if math.isnan(low) or math.isnan(high):
        return text
    below, above = (part.form.replace("+", "").format(side) for side in (number - low, high - number))
    return text + (f" ± {above}" if below == above else f" ({part.form.format(low)} to {part.form.format(high)})")

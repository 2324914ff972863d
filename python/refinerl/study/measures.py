"""The measures of a run, from its rows: means over windows of steps, never single steps. Held-out values are exact."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from refinerl.config import Config

WINDOW = 10
"""Steps of a window; a fifth of the run in runs of less than 50 steps."""

HELD_OUT = ("evaluate/pass@1", "evaluate/reward")
"""Metrics of held-out success; the first that a run has is used."""

CE, PROBED = "constraint/ce", "refiner/ce"
"""Cross-entropy on accepted ỹ: that of a run that is taught by them, and that of a run that only measures them."""

MARKS = (20, 40, 60, 80)
"""Percentages of a run's steps at which the table shows held-out success."""

FALL = 0.1
"""Distance below its start from which on the held-out success of a run is that of a collapsed one."""

COLLAPSE = (
    f"A run has collapsed if its held-out success (pass@1) at the end is below half of its own best, or more than "
    f"{FALL} below its start."
)
"""The rule of `collapsed`."""

Row = Mapping[str, Any]


def measure(rows: Sequence[Row], config: Config) -> dict[str, float]:
    """Compute the measures of a run; one that its rows do not have is absent.

    `reward_peak` is the highest mean over a window. `held_out_area` is the mean height of the held-out curve, by the
    trapezoidal rule over the steps. Between evaluations the curve is a straight line. `collapsed` is 0 or 1, and absent
    where success is a reward, which has no natural zero.

    Args:
        rows: of metrics.jsonl; the row of step 0 holds only the evaluation before training.
        config: the run's configuration.
    """
    steps = [row for row in rows if row["step"] > 0]
    window = max(1, min(WINDOW, len(steps) // 5))
    found: dict[str, float | None] = {}
    means = moving(steps, "reward/mean", window)
    found["reward_start"] = mean(steps[:window], "reward/mean")
    found["reward_peak"] = max(means, default=None)
    found["reward_end"] = mean(steps[-window:], "reward/mean")
    curve = held_out(rows)
    if curve:
        found |= _held_out(curve, config.trainer.steps)
        if present(rows, HELD_OUT[0]):
            found["collapsed"] = float(collapsed(curve))
    for name, metric in (
        ("kl", "policy/kl_to_reference"),
        ("ce", source(steps, CE)),
        ("improved", "refiner/improved_ratio"),
        ("entropy", "policy/entropy"),
    ):
        found[f"{name}_first"] = mean(steps[:window], metric)
        found[f"{name}_last"] = mean(steps[-window:], metric)
    for name, metric in (("tokens", "tokens/step"), ("seconds", "time/step")):
        values = present(steps, metric)
        found[name] = math.fsum(values) if values else None
    return {name: value for name, value in found.items() if value is not None}


def _held_out(curve: Sequence[tuple[int, float]], steps: int) -> dict[str, float | None]:
    last, end = curve[-1]
    start = curve[0][1] if curve[0][0] == 0 else None
    best = max(value for _, value in curve)
    found: dict[str, float | None] = {"held_out_start": start}
    found |= {f"held_out_{mark}": at(curve, mark / 100 * steps) for mark in MARKS}
    found |= {"held_out_end": end, "held_out_best": best}
    found["held_out_area"] = area(curve) if last > curve[0][0] else None
    return found


def collapsed(curve: Sequence[tuple[int, float]]) -> bool:
    """Apply the rule `COLLAPSE` to a run's held-out curve of (step, share of problems); its start is at step 0.

    >>> collapsed([(0, 0.28), (20, 0.45), (100, 0.09)]), collapsed([(0, 0.28), (20, 0.45), (100, 0.29)])
    (True, False)
    """
    end, best = curve[-1][1], max(value for _, value in curve)
    step, start = curve[0]
    return end < best / 2 or (step == 0 and end < start - FALL)


def held_out(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Return the (step, success) points of a run's held-out curve."""
    for metric in HELD_OUT:
        points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        if points:
            return points
    return []


def at(curve: Sequence[tuple[int, float]], step: float) -> float | None:
    """Return a curve's height at a step, on the straight line between its points; None outside of them.

    >>> at([(0, 0.2), (20, 0.6)], 5), at([(10, 0.2), (20, 0.6)], 5)
    (0.3, None)
    """
    for (a, low), (b, high) in itertools.pairwise(curve):
        if a <= step <= b:
            return low + (high - low) * (step - a) / (b - a)
    return None


def area(curve: Sequence[tuple[int, float]]) -> float:
    """Return the mean height of a curve of at least two points, by the trapezoidal rule.

    >>> area([(0, 0.0), (10, 1.0), (20, 1.0)])
    0.75
    """
    pairs = list(itertools.pairwise(curve))
    return math.fsum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairs) / (curve[-1][0] - curve[0][0])


def source(rows: Sequence[Row], metric: str) -> str:
    """Return the metric from which a measure is read: that of the probe for CE, in a run that has one."""
    return PROBED if metric == CE and present(rows, PROBED) else metric


def present(rows: Sequence[Row], metric: str) -> list[float]:
    """Return a metric's values in the rows that have it."""
    return [row[metric] for row in rows if row.get(metric) is not None]


def mean(rows: Sequence[Row], metric: str) -> float | None:
    """Return a metric's mean over the rows that have it; None if none has."""
    values = present(rows, metric)
    return statistics.fmean(values) if values else None


def moving(rows: Sequence[Row], metric: str, window: int) -> list[float]:
    """Return a metric's means over each `window` successive rows, without windows that lack it."""
    means = (mean(rows[end - window : end], metric) for end in range(window, len(rows) + 1))
    return [value for value in means if value is not None]

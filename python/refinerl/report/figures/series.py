"""Curves: of one run, or of several that differ in their seed, with their mean and range over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMOOTHED = 7
"""Steps over which a curve of training metrics is averaged."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Drawn:
    """A run that is drawn: its folder, its rows of metrics.jsonl, its config.yaml."""

    folder: Path
    rows: Rows
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """Runs that differ only in their seed. They are drawn as one line."""

    name: str
    runs: tuple[Drawn, ...]


@dataclass(frozen=True)
class Band:
    """The curve of a series: mean and range over its runs, at the steps that all of them have."""

    steps: list[int]
    means: list[float]
    lows: list[float]
    highs: list[float]
    runs: int
    """Number of runs that have the metric."""


def band(series: Series, metrics: Sequence[str]) -> Band | None:
    """Return the curve of a series; None if its runs do not have the metric, or no step in common.

    Args:
        metrics: names of one quantity; of each run the first is drawn that it has.
    """
    curves = [points for run in series.runs if (points := dict(curve(run.rows, metrics)))]
    steps = sorted(set.intersection(*(set(points) for points in curves))) if curves else []
    if not steps:
        return None
    values = [[points[step] for points in curves] for step in steps]
    means = [statistics.fmean(some) for some in values]
    return Band(steps, means, list(map(min, values)), list(map(max, values)), len(curves))


def curve(rows: Rows, metrics: Sequence[str]) -> list[tuple[int, float]]:
    """Return the (step, value) points of a run's curve.

    A training metric is a mean over the last steps (`SMOOTHED`), an evaluation is as it was measured.

    >>> curve([{"step": 1, "a": 1.0}, {"step": 2, "a": 4.0}], ["b", "a"])
    [(1, 1.0), (2, 2.5)]
    >>> curve([{"step": 0, "evaluate/a": 1.0}, {"step": 2, "evaluate/a": 4.0}], ["evaluate/a"])
    [(0, 1.0), (2, 4.0)]
    """
    for metric in metrics:
        if any(row.get(metric) is not None for row in rows):
            break
    else:
        return []
    if metric.startswith("evaluate/"):
        return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    found = []
    steps = [row for row in rows if row["step"] > 0]
    for end in range(1, len(steps) + 1):
        values = [row[metric] for row in steps[max(0, end - SMOOTHED) : end] if row.get(metric) is not None]
        if values:
            found.append((steps[end - 1]["step"], statistics.fmean(values)))
    return found

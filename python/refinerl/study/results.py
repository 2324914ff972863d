"""The finished runs of a study's folder, with their measures."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinerl.report.metrics import read_metrics
from refinerl.run import recipe
from refinerl.study import plan, runs
from refinerl.study.file import Arm
from refinerl.study.measures import measure
from refinerl.study.record import Record


@dataclass(frozen=True)
class Result:
    """A finished run."""

    arm: str
    seed: int
    folder: Path
    rows: Sequence[Mapping[str, Any]]
    measures: Mapping[str, float]
    point: str = ""
    """The point of the grid that a tuning run tried; empty for a run of the study itself."""


@dataclass(frozen=True)
class Point:
    """A point of an arm's grid, over the seeds of the tuning."""

    name: str
    knobs: Mapping[str, Any]
    results: tuple[Result, ...]
    expected: int
    """Number of runs that the point has when all are finished."""

    def mean(self, measure: str) -> float | None:
        """Return the mean of a measure over the point's runs; None unless all are finished and have it."""
        values = [result.measures[measure] for result in self.results if measure in result.measures]
        return statistics.fmean(values) if len(values) == self.expected else None


def read(folder: Path, arm: str, seed: int, point: str = "") -> Result:
    """Read a finished run.

    Raises:
        UserError: a file is damaged.
    """
    rows = read_metrics(folder)
    return Result(arm, seed, folder, rows, measure(rows, recipe.load_run(folder)), point)


def finals(output: Path, record: Record) -> list[Result]:
    """Read the finished runs of the study itself, arm by arm.

    Raises:
        UserError: a file is damaged.
    """
    places = [(arm, seed, output / arm / f"seed-{seed}") for arm in record.arms for seed in record.seeds]
    return [read(folder, arm, seed) for arm, seed, folder in places if runs.is_finished(folder)]


def tuned(output: Path, record: Record, arm: str) -> list[Point]:
    """Read the finished tuning runs of an arm, point by point; [] for an arm without a grid.

    Raises:
        UserError: a file is damaged.
    """
    return list(_points(output, record, arm)) if arm in record.grids and record.tuning is not None else []


def _points(output: Path, record: Record, arm: str) -> Iterator[Point]:
    seeds = (record.tuning or {})["seeds"]
    for knobs in Arm(grid=dict(record.grids[arm])).points:
        place, name = output / "tuning" / arm / plan.folder(knobs), plan.label(knobs)
        places = [(seed, place / f"seed-{seed}") for seed in seeds]
        found = [read(folder, arm, seed, name) for seed, folder in places if runs.is_finished(folder)]
        yield Point(name, knobs, tuple(found), len(seeds))


def best(points: Sequence[Point], measure: str) -> Point | None:
    """Return the point with the highest mean, the earliest of equal ones; None if a point's runs are missing."""
    means = [point.mean(measure) for point in points]
    known = [value for value in means if value is not None]
    if not points or len(known) < len(means):
        return None
    return points[known.index(max(known))]


def remove(output: Path, arms: Sequence[str]) -> None:
    """Remove all runs of some arms."""
    for arm in arms:
        for folder in (output / arm, output / "tuning" / arm):
            shutil.rmtree(folder, ignore_errors=True)

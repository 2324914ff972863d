"""The table of a study: each measure as mean ± standard error over an arm's seeds, and paired differences of arms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refinerl.study.measures import COLLAPSE, WINDOW
from refinerl.study.plan import label
from refinerl.study.record import SCHEMA, Record
from refinerl.study.results import Point, Result, best

BLOCKS: Mapping[str, Mapping[str, str]] = {
    "Reward and held-out success": {
        "reward_start": "reward start",
        "reward_peak": "reward peak",
        "reward_end": "reward end",
        "held_out_start": "held out start",
        "held_out_end": "held out end",
        "held_out_best": "held out best",
    },
    "Held-out success over the run": {
        "held_out_20": "20 %",
        "held_out_40": "40 %",
        "held_out_60": "60 %",
        "held_out_80": "80 %",
        "held_out_area": "area",
        "collapsed": "collapsed",
    },
    "Divergence and refinement": {
        "kl_first": "KL first",
        "kl_last": "KL last",
        "ce_first": "CE first",
        "ce_last": "CE last",
        "improved_first": "improved first",
        "improved_last": "improved last",
    },
    "Entropy and cost": {
        "entropy_first": "entropy first",
        "entropy_last": "entropy last",
        "tokens": "tokens",
        "seconds": "seconds",
    },
}
"""Columns of the table by measure. KL, CE and entropy are in nats per token."""

COMPARED = {
    "held_out_end": "held-out success at the end",
    "held_out_best": "best held-out success",
    "held_out_area": "area under the held-out curve",
    "reward_end": "reward at the end",
    "kl_last": "KL to the reference at the end",
}
"""Measures by which pairs of arms are compared."""

FEWEST = 3
"""Smallest number of common seeds for a verdict."""

EXPLAINED = (
    f"Means over windows of {WINDOW} steps (a fifth of the run where it has less than 50): reward start and end, first "
    "and last are the first and the last window, reward peak is the highest window. Held-out values are single "
    "evaluations; area is the mean height of their curve. Each is the mean over seeds ± its standard error. A blank "
    "was not measured; a number in parentheses counts the seeds where not all have the measure. KL, CE and entropy are "
    "in nats per token; improved is the share of responses that the refiner improved. "
) + COLLAPSE
"""The text under the table."""


@dataclass(frozen=True)
class Cell:
    """A measure over an arm's seeds."""

    values: Mapping[int, float]
    """By seed."""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None for a single seed."""
        return standard_error(list(self.values.values()))

    def as_json(self) -> dict[str, Any]:
        """The cell as a JSON object."""
        return {"mean": self.mean, "se": self.error, "n": len(self.values), "values": dict(self.values)}


@dataclass(frozen=True)
class Difference:
    """A measure of one arm minus another's, on the same seeds."""

    first: str
    second: str
    measure: str
    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean over the common seeds."""
        return statistics.fmean(self.values.values())

    @property
    def error(self) -> float | None:
        """Standard error of the mean of the paired differences; None for a single seed."""
        return standard_error(list(self.values.values()))

    @property
    def verdict(self) -> str:
        """Answer whether the first arm is higher: yes, no (it is lower), unclear, or too few seeds.

        A difference is clear if it is more than 2 standard errors from 0.
        """
        if len(self.values) < FEWEST or self.error is None:
            return "too few seeds"
        if abs(self.mean) <= 2 * self.error:
            return "unclear"
        return "yes" if self.mean > 0 else "no"

    @property
    def sentence(self) -> str:
        """The verdict as a line of text."""
        seeds = f"{len(self.values)} seed{'' if len(self.values) == 1 else 's'}"
        by = f"{self.mean:+.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")
        return f"{self.first} − {self.second}, {COMPARED[self.measure]}: {by} ({seeds}); higher? {self.verdict}"


@dataclass(frozen=True)
class Table:
    """All that a study measured."""

    record: Record
    arms: Mapping[str, Mapping[str, Cell]]
    """Cells by arm and measure; an arm without a finished run is absent."""
    seeds: Mapping[str, tuple[int, ...]]
    """Seeds of the finished runs of each arm."""
    differences: tuple[Difference, ...]
    tuning: Mapping[str, Sequence[Point]]

    @staticmethod
    def of(record: Record, results: Sequence[Result], tuning: Mapping[str, Sequence[Point]]) -> Table:
        """Make the table of finished runs."""
        arms: dict[str, dict[str, Cell]] = {}
        names = [name for block in BLOCKS.values() for name in block]
        for arm in record.arms:
            mine = [result for result in results if result.arm == arm]
            cells = {n: {r.seed: r.measures[n] for r in mine if n in r.measures} for n in names}
            if mine:
                arms[arm] = {name: Cell(values) for name, values in cells.items() if values}
        differences = [
            found
            for first, second in record.compare
            for measure in COMPARED
            if (found := difference(arms, first, second, measure)) is not None
        ]
        seeds = {arm: tuple(result.seed for result in results if result.arm == arm) for arm in arms}
        return Table(record, arms, seeds, tuple(differences), tuning)

    @property
    def missing(self) -> list[str]:
        """The runs that are not finished, such as `none seed 3`."""
        return [
            f"{arm} seed {seed}"
            for arm in self.record.arms
            for seed in self.record.seeds
            if seed not in self.seeds.get(arm, ())
        ]

    @property
    def goal(self) -> str:
        """The measure by which grids were decided; empty without tuning."""
        return "" if self.record.tuning is None else str(self.record.tuning["measure"])

    def text(self, arm: str, measure: str, *, narrow: bool = False) -> str:
        """Write a cell, such as `0.93 ± 0.02`; empty if the arm does not have the measure."""
        cell = self.arms.get(arm, {}).get(measure)
        if cell is None:
            return ""
        if measure == "collapsed":
            return f"{sum(cell.values.values()):.0f} of {len(cell.values)}"
        text = number(cell.mean)
        if cell.error is not None:
            text += f"{'±' if narrow else ' ± '}{number(cell.error, 1)}"
        few = len(cell.values) < len(self.seeds[arm])
        return f"{text} ({len(cell.values)})" if few else text

    def notes(self) -> list[str]:
        """Return what a reader of the table has to know: missing runs, grids, their budgets."""
        notes = []
        if self.missing:
            more = f" and {len(self.missing) - 6} more" if len(self.missing) > 6 else ""
            notes.append(f"Not finished: {', '.join(self.missing[:6])}{more}.")
        for arm, point in self.record.chosen.items():
            ran = (
                f"the best of {len(self.tuning[arm])} by {self.goal}" if self.tuning.get(arm) else "as the band has it"
            )
            notes.append(f"{arm} runs with {label(point)}, {ran}.")
        return notes + ([budget] if (budget := self.budget()) else [])

    def budget(self) -> str:
        """Say whether every arm had the same number of tuning runs; empty if no arm was tuned."""
        if not any(self.tuning.values()):
            return ""
        counts = {arm: sum(point.expected for point in self.tuning.get(arm, ())) for arm in self.record.arms}
        if len(set(counts.values())) == 1:
            return f"Every arm had {next(iter(counts.values()))} tuning runs."
        return (
            "The arms had different numbers of tuning runs: " + ", ".join(f"{a} {n}" for a, n in counts.items()) + "."
        )

    def as_json(self) -> dict[str, Any]:
        """The table as a JSON object."""
        record = self.record
        return {
            "schema": SCHEMA,
            "study": record.study,
            "title": record.title,
            "refinerl": record.refinerl,
            "sources": record.sources,
            "arms": {
                arm: {
                    "seeds": list(self.seeds[arm]),
                    "chosen": dict(record.chosen.get(arm, {})),
                    "measures": {name: cell.as_json() for name, cell in cells.items()},
                }
                for arm, cells in self.arms.items()
            },
            "compare": [
                {
                    "first": d.first,
                    "second": d.second,
                    "measure": d.measure,
                    "difference": d.mean,
                    "se": d.error,
                    "values": dict(d.values),
                    "verdict": d.verdict,
                }
                for d in self.differences
            ],
            "tuning": {
                arm: [
                    {"point": dict(point.knobs), self.goal: point.mean(self.goal)}
                    | {"runs": {str(result.seed): dict(result.measures) for result in point.results}}
                    for point in points
                ]
                for arm, points in self.tuning.items()
            },
            "missing": self.missing,
        }

    def grids(self) -> list[tuple[str, str, str, bool]]:
        """Return the grids as rows: arm, point, mean of the measure over the tuning seeds, True if it was chosen."""
        rows = []
        for arm, points in self.tuning.items():
            winner = best(points, self.goal)
            for point in points:
                mean = point.mean(self.goal)
                rows.append((arm, point.name, "" if mean is None else number(mean), point is winner))
        return rows


def difference(arms: Mapping[str, Mapping[str, Cell]], first: str, second: str, measure: str) -> Difference | None:
    """Return a paired difference; None if the arms have no common seed with that measure."""
    cells = [arms.get(arm, {}).get(measure) for arm in (first, second)]
    a, b = (cell.values if cell is not None else {} for cell in cells)
    common = {seed: a[seed] - b[seed] for seed in a if seed in b}
    return Difference(first, second, measure, common) if common else None


def standard_error(values: Sequence[float]) -> float | None:
    """Compute the standard error of a mean of independent values; None for less than two.

    >>> standard_error([1.0, 3.0])
    1.0
    """
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def number(value: float, digits: int = 2) -> str:
    """Write a number with two decimals, or with so many digits if it is small.

    >>> [number(x) for x in (0.934, 0.0214, 12345.6, 0.0)]
    ['0.93', '0.021', '12,346', '0']
    """
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.{digits}g}"

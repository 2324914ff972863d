"""Bands: what a study measured, and whether a rerun differs from it by more than chance."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from refinerl import __version__
from refinerl.data.jsonlines import parse
from refinerl.errors import UserError
from refinerl.report.export import save
from refinerl.study import file, fisher
from refinerl.study.record import Record
from refinerl.study.table import FEWEST, Cell, Table

SCHEMA = 2

ALARM = 0.05
"""Greatest chance that the check of an arm finds a measure outside where nothing has changed.

Each measure gets an equal part of it (Bonferroni's inequality), as the measures of a run depend on each other."""

MOST = 1000
"""Most seeds of a band; and its means and errors are below 10¹². More is a slip of the pen."""

FLOORS: Mapping[str, float] = {
    **dict.fromkeys(("reward_start", "reward_peak", "reward_end"), 0.1),
    **dict.fromkeys(("held_out_start", "held_out_20", "held_out_40", "held_out_60", "held_out_80"), 0.05),
    **dict.fromkeys(("held_out_end", "held_out_best", "held_out_area"), 0.05),
    **dict.fromkeys(("kl_first", "kl_last", "ce_first", "ce_last"), 0.02),
    **dict.fromkeys(("improved_first", "improved_last"), 0.05),
}
"""The measures that are checked, each with a difference that never counts."""


@dataclass(frozen=True)
class Summary:
    """A measure over the seeds of an arm."""

    mean: float
    se: float
    """Standard error of the mean; 0 for a single seed."""
    n: int

    @staticmethod
    def of(cell: Cell) -> Summary:
        """Summarize a cell of a study's table."""
        return Summary(cell.mean, cell.error or 0.0, len(cell.values))

    @property
    def squares(self) -> float:
        """Sum of the squared distances from the mean."""
        return self.se**2 * self.n * (self.n - 1)

    @property
    def deviation(self) -> float:
        """Standard deviation of the seeds; 0 for a single seed."""
        return self.se * math.sqrt(self.n)


@dataclass(frozen=True)
class Bands:
    """Results of a study's arms, with which a rerun is compared."""

    study: str
    arms: Mapping[str, Mapping[str, Summary]]
    """By arm and measure."""
    chosen: Mapping[str, Mapping[str, Any]]
    """The points of their grids that the arms ran with. A rerun uses them instead of tuning again."""
    settings: Mapping[str, str]
    """A hash of each arm's knobs; an arm that is not there is not checked for other knobs."""

    @staticmethod
    def read(path: Path, study: str) -> Bands:
        """Read a file of bands for a study.

        Raises:
            UserError: it cannot be read, has another schema, or belongs to another study or version.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UserError(f"the band {path} cannot be read: {reason}") from error
        try:
            values = file.content(text) if file.is_path(path.name) else parse(str(path), text)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise UserError(f"the band {path} cannot be parsed: {_line(error)}") from error
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            schema = _line(values.get("schema")) if isinstance(values, dict) else None
            raise UserError(
                f"the band {path} has schema {schema}, this version of refinerl reads {SCHEMA}: write it anew with "
                "--write-band"
            )
        for key, mine in (("study", study), ("refinerl", __version__)):
            if values.get(key) != mine:
                what = "the study" if key == "study" else "refinerl"
                raise UserError(
                    f"the band {path} is for {what} {_line(values.get(key))}, this is {mine}: write one anew with "
                    "--write-band"
                )
        try:
            arms = {
                str(arm): {str(name): _summary(name, values) for name, values in measures.items()}
                for arm, measures in values["arms"].items()
            }
            for arm, measures in arms.items():
                if not measures:
                    raise ValueError(f"the arm {arm} has no measure")
            chosen = {str(arm): dict(point) for arm, point in values.get("chosen", {}).items()}
            return Bands(study, arms, chosen, dict(values.get("settings", {})))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"the band {path} is damaged: arms must hold {{measure: {{mean, se, n}}}} ({_line(error)})"
            ) from error

    def require(self, path: Path, record: Record) -> None:
        """Check that each arm of a study that is about to run has a band for its knobs.

        Raises:
            UserError: one has none, has other knobs, or a chosen point that is none of its grid.
        """
        for arm in record.arms:
            if arm not in self.arms:
                raise UserError(f"the band {path} has no arm {arm!r}: choose --arms among {', '.join(self.arms)}")
            knobs, grid = sorted(self.chosen.get(arm, ())), sorted(record.grids.get(arm, ()))
            if arm in self.chosen and grid and knobs != grid:
                raise UserError(
                    f"the band {path} chose a point of {', '.join(map(str, knobs)) or 'no knob'} for the arm {arm!r}, "
                    f"whose grid has {', '.join(grid)}: write one anew with --write-band"
                )
            if arm in self.settings and self.settings[arm] != fingerprint(record, arm):
                raise UserError(
                    f"the band {path} was measured with other knobs of the arm {arm!r}: leave out overrides, or write "
                    "one anew with --write-band"
                )

    def check(self, table: Table, arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[bool, str]]:
        """Compare each measure's mean and spread over the seeds with those that are expected: (inside, line).

        A measure that all seeds of the band have must be there in all seeds of the rerun.
        """
        for arm in arms:
            whole = max(band.n for band in self.arms[arm].values())
            for measure, band in self.arms[arm].items():
                cell = table.arms.get(arm, {}).get(measure)
                values = {} if cell is None else {s: v for s, v in cell.values.items() if s in seeds}
                lacking = [seed for seed in seeds if seed not in values]
                if not values or (lacking and band.n == whole):
                    where = "" if not values else f" in seed {', '.join(map(str, lacking))}"
                    yield False, f"missing  {arm} {measure}: not measured{where}, expected near {band.mean:.4g}"
                    continue
                rerun, floor = Summary.of(Cell(values)), FLOORS[measure]
                low, high = interval(band, rerun, floor)
                most = widest(band, rerun, floor)
                of = f"{arm} {measure}"
                if not low <= rerun.mean <= high:
                    yield False, f"OUTSIDE  {of}: {rerun.mean:.4g}, expected {low:.4g} to {high:.4g}"
                elif rerun.deviation > most:
                    yield (
                        False,
                        f"OUTSIDE  {of}: {rerun.mean:.4g}, with a standard deviation of {rerun.deviation:.4g} over "
                        f"{rerun.n} seeds, expected at most {most:.4g}",
                    )
                else:
                    yield True, f"inside   {of}: {rerun.mean:.4g}, expected {low:.4g} to {high:.4g}"


def write_band(path: Path, table: Table) -> None:
    """Write the bands of a study's arms, as YAML or, if the name ends in .json, as JSON.

    A measure that less than 3 seeds have gets none.

    Raises:
        UserError: an arm has less than 3 seeds or no finished run, or the file cannot be written.
    """
    few = [arm for arm in table.record.arms if len(table.seeds.get(arm, ())) < FEWEST]
    if few:
        raise UserError(f"a band needs at least {FEWEST} finished seeds of each arm; too few has {', '.join(few)}")
    bands = {
        arm: {
            name: _plain(Summary.of(cells[name]))
            for name in FLOORS
            if name in cells and len(cells[name].values) >= FEWEST
        }
        for arm, cells in table.arms.items()
    }
    values = {
        "schema": SCHEMA,
        "refinerl": __version__,
        "study": table.record.study,
        "arms": bands,
        "chosen": {arm: dict(point) for arm, point in table.record.chosen.items()},
        "settings": {arm: fingerprint(table.record, arm) for arm in bands},
    }
    as_yaml = file.is_path(path.name)
    save(
        path,
        yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
        if as_yaml
        else json.dumps(values, indent=1) + "\n",
    )


def interval(band: Summary, rerun: Summary, floor: float) -> tuple[float, float]:
    """Return (low, high), between which the mean of a rerun is expected where nothing has changed.

    It is the acceptance region of Student's t-test of two samples with their pooled variance; at least ± `floor`. The
    level is `ALARM` / 17, as there are 17 measures, and half of that for a rerun of several seeds, whose spread gets
    the other half. Few seeds make it wide.

    >>> band = Summary(0.8, 0.02, 5)
    >>> for seeds in (1, 3, 5):
    ...     low, high = interval(band, Summary(0.8, 0.02, seeds), 0.05)
    ...     print(seeds, round(low, 3), round(high, 3))
    1 0.483 1.117
    3 0.632 0.968
    5 0.666 0.934
    """
    degrees = band.n + rerun.n - 2
    variance = (band.squares + rerun.squares) / degrees
    t = math.sqrt(fisher.limit(_level(rerun), 1, degrees))  # t² is F with one degree of freedom above
    half = max(t * math.sqrt(variance * (1 / band.n + 1 / rerun.n)), floor)
    return band.mean - half, band.mean + half


def widest(band: Summary, rerun: Summary, floor: float) -> float:
    """Return the standard deviation that the seeds of a rerun stay below where nothing has changed.

    It is the one-sided F-test of two variances, with half of a measure's level; at least `floor`. Without it a rerun in
    which some seeds fail would widen the pooled interval of the mean, and pass. A single seed has no spread.

    >>> round(widest(Summary(0.8, 0.02, 5), Summary(0.8, 0.02, 3), 0.05), 3)
    0.317
    """
    if rerun.n == 1:
        return math.inf
    return max(band.deviation * math.sqrt(fisher.limit(_level(rerun), rerun.n - 1, band.n - 1)), floor)


def _level(rerun: Summary) -> float:
    return ALARM / len(FLOORS) / (1 if rerun.n == 1 else 2)


def fingerprint(record: Record, arm: str) -> str:
    """Hash an arm's knobs, which a band belongs to, to twelve digits; of an absolute path only the name counts."""
    knobs = {
        key: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for key, value in record.arms[arm].items()
    }
    return hashlib.sha256(json.dumps(knobs, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _summary(name: str, values: Mapping[str, Any]) -> Summary:
    if name not in FLOORS:
        raise ValueError(f"{name} has no band")
    mean, se, n = values["mean"], values["se"], values["n"]
    if not (type(mean) in (int, float) and type(se) in (int, float) and abs(mean) < 1e12 and 0 <= se < 1e12):
        raise ValueError(f"{name} needs a finite mean and se of at least 0, as numbers")
    if type(n) is not int or not FEWEST <= n <= MOST:
        raise ValueError(f"{name} needs a whole n of at least {FEWEST} and at most {MOST}")
    return Summary(float(mean), float(se), n)


def _line(value: object) -> str:
    """Return a text of at most one line, of 200 characters."""
    return " ".join(str(value).split())[:200]


def _plain(summary: Summary) -> dict[str, float]:
    return {"mean": round(summary.mean, 6), "se": round(summary.se, 6), "n": summary.n}

"""Bands: the intervals in which a rerun of a study is expected, and the check of a rerun against them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refinerl import __version__
from refinerl.data.jsonlines import parse
from refinerl.errors import UserError
from refinerl.report.export import save
from refinerl.study import file
from refinerl.study.record import Record
from refinerl.study.table import FEWEST, Cell, Table

SCHEMA = 1

WIDTH = 3.0
"""Standard errors between a band's middle and its ends."""

FLOORS: Mapping[str, float] = {
    **dict.fromkeys(("reward_start", "reward_peak", "reward_end"), 0.1),
    **dict.fromkeys(("held_out_start", "held_out_20", "held_out_40", "held_out_60", "held_out_80"), 0.05),
    **dict.fromkeys(("held_out_end", "held_out_best", "held_out_area"), 0.05),
    **dict.fromkeys(("kl_first", "kl_last", "ce_first", "ce_last"), 0.02),
    **dict.fromkeys(("improved_first", "improved_last"), 0.05),
}
"""The measures that a band has, each with the smallest distance of its ends from the middle."""


@dataclass(frozen=True)
class Bands:
    """The bands of a study's arms."""

    study: str
    arms: Mapping[str, Mapping[str, tuple[float, float]]]
    """(low, high) by arm and measure."""
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
            values = yaml.safe_load(text) if file.is_path(path.name) else parse(str(path), text)
        except yaml.YAMLError as error:
            raise UserError(f"the band {path} is not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            schema = values.get("schema") if isinstance(values, dict) else None
            raise UserError(
                f"the band {path} has schema {schema}, this version of refinerl reads {SCHEMA}: write it anew with "
                "--write-band"
            )
        for key, mine in (("study", study), ("refinerl", __version__)):
            if values.get(key) != mine:
                what = "the study" if key == "study" else "refinerl"
                raise UserError(
                    f"the band {path} is for {what} {values.get(key)}, this is {mine}: write one anew with --write-band"
                )
        try:
            arms = {
                str(arm): {str(name): _interval(ends) for name, ends in measures.items()}
                for arm, measures in values["arms"].items()
            }
            return Bands(study, arms, dict(values.get("chosen", {})), dict(values.get("settings", {})))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the band {path} is damaged: arms must hold {{measure: [low, high]}} ({error})") from error

    def require(self, path: Path, record: Record) -> None:
        """Check that each arm of a study that is about to run has a band for its knobs.

        Raises:
            UserError: one has none, or has other knobs.
        """
        for arm in record.arms:
            if arm not in self.arms:
                raise UserError(f"the band {path} has no arm {arm!r}: choose --arms among {', '.join(self.arms)}")
            if arm in self.settings and self.settings[arm] != fingerprint(record, arm):
                raise UserError(
                    f"the band {path} was measured with other knobs of the arm {arm!r}: leave out overrides, or write "
                    "one anew with --write-band"
                )

    def check(self, table: Table, arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[bool, str]]:
        """Compare the mean over the seeds of each measure with its band: (inside, line of text)."""
        for arm in arms:
            for measure, (low, high) in self.arms[arm].items():
                cell = table.arms.get(arm, {}).get(measure)
                values = {} if cell is None else {s: v for s, v in cell.values.items() if s in seeds}
                if not values:
                    yield False, f"missing  {arm} {measure}: not measured, expected {low:g} to {high:g}"
                    continue
                mean = Cell(values).mean
                inside = low <= mean <= high
                word = "inside " if inside else "OUTSIDE"
                yield inside, f"{word}  {arm} {measure}: {mean:.4g}, expected {low:g} to {high:g}"


def write_band(path: Path, table: Table) -> None:
    """Write the bands of a study's arms, as YAML or, if the name ends in .json, as JSON.

    A band is the mean over the n seeds ± WIDTH · SE · √(n + 1), that is 3 standard errors of the difference between
    this mean and one further run; it is at least as wide as `FLOORS` has it. So a rerun of a single seed is expected
    inside, and one of several all the more. A measure that less than 3 seeds have gets none.

    Raises:
        UserError: an arm has less than 3 seeds or no finished run, or the file cannot be written.
    """
    few = [arm for arm in table.record.arms if len(table.seeds.get(arm, ())) < FEWEST]
    if few:
        raise UserError(f"a band needs at least {FEWEST} finished seeds of each arm; too few has {', '.join(few)}")
    bands = {
        arm: {
            name: list(interval(cells[name], floor))
            for name, floor in FLOORS.items()
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


def interval(cell: Cell, floor: float) -> tuple[float, float]:
    """Return a measure's band (low, high), rounded to 4 decimals.

    >>> interval(Cell({0: 0.8, 1: 0.9, 2: 1.0}), 0.05)  # SE 0.0577: ± 3 · 0.0577 · 2
    (0.5536, 1.2464)
    """
    half = max(WIDTH * (cell.error or 0.0) * math.sqrt(len(cell.values) + 1), floor)
    return round(cell.mean - half, 4), round(cell.mean + half, 4)


def fingerprint(record: Record, arm: str) -> str:
    """Hash an arm's knobs, which a band belongs to, to twelve digits; of an absolute path only the name counts."""
    knobs = {
        key: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for key, value in record.arms[arm].items()
    }
    return hashlib.sha256(json.dumps(knobs, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _interval(ends: Any) -> tuple[float, float]:
    low, high = map(float, ends)
    if not low <= high:
        raise ValueError(f"[{low:g}, {high:g}] is not an interval")
    return low, high

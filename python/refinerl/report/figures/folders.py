"""The runs that a command names: folders of runs, and folders of studies with all their arms and seeds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refinerl.errors import UserError
from refinerl.report import unfinished
from refinerl.report.figures.series import Drawn, Series
from refinerl.report.model import is_run

STUDY = "study.yaml"
OWN = ("seed", "chat_template_date")
"""Knobs in which the runs of a series may differ."""
SEED = re.compile(r"seed[-_]?\d+")
"""The name of the folder of one of several seeds."""


@dataclass(frozen=True)
class Found:
    """The runs to draw."""

    series: tuple[Series, ...]
    grids: tuple[Series, ...] = ()
    """The points of the studies' grids, from the runs of their tuning."""
    notes: tuple[str, ...] = ()
    """Sentences on what is not there."""


def find(folders: Sequence[Path]) -> Found:
    """Find the runs in folders. Runs that differ only in their seed become one series.

    Of a study the finished runs are drawn, in the order of its arms; of the others whatever there is.

    Raises:
        UserError: a folder is neither a run's nor a study's, a file is damaged, or another version wrote it.
    """
    runs: list[tuple[str, Drawn]] = []
    grids: list[tuple[str, Drawn]] = []
    notes: list[str] = []
    for place, folder in {folder.resolve(): folder for folder in folders}.items():
        if is_run(folder):
            run = read(place, notes)
            runs.append((name_of(run), run))
        elif (folder / STUDY).is_file():
            done, waiting, points = _study(place, notes)
            runs += done
            grids += points
            if waiting:
                notes.append(f"{folder}: {waiting} run{' is' if waiting == 1 else 's are'} not finished and left out")
        else:
            raise UserError(f"{folder} is the folder of neither a run (config.yaml) nor a study ({STUDY})")
    return Found(tuple(_series(runs)), tuple(_series(grids)), tuple(notes))


def read(folder: Path, notes: list[str]) -> Drawn:
    """Read the rows and the configuration of a run.

    Args:
        folder: the run's.
        notes: gets a sentence for what is missing, such as the end of a last line that is cut off.

    Raises:
        UserError: a file is damaged, or another version of refinerl wrote it.
    """
    lacks: list[str] = []
    run = Drawn(folder, unfinished.metrics(folder, lacks), read_config(folder))
    notes += [f"{folder}: {note}" for note in lacks]
    return run


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a run, as it stands in its config.yaml.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    return _mapping(folder / "config.yaml", "the configuration of a run")


def _mapping(path: Path, what: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not {what}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not {what}: it holds no mapping")
    return values


def name_of(run: Drawn) -> str:
    """Name a run: `telemetry.run_name`, else its folder's name, or that of the folder of its seeds."""
    telemetry, folder = run.config.get("telemetry"), run.folder
    named = telemetry.get("run_name") if isinstance(telemetry, dict) else None
    return str(named or (folder.parent.name if SEED.fullmatch(folder.name) else folder.name) or folder)


def _study(folder: Path, notes: list[str]) -> tuple[list[tuple[str, Drawn]], int, list[tuple[str, Drawn]]]:
    """Return the finished runs of a study by arm, the number of the others, and the runs of its grids by point."""
    record = _mapping(folder / STUDY, "the record of a study")
    try:
        arms, seeds = record["arms"], record["seeds"]
        places = [(str(arm), folder / str(arm) / f"seed-{seed}") for arm in arms for seed in seeds]
        grids = {str(arm): tuple(map(str, grid)) for arm, grid in (record.get("grids") or {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / STUDY} is not the record of a study: arms, seeds or grids are missing") from error
    done = [(arm, read(place, notes)) for arm, place in places if _is_finished(place)]
    points = [
        (f"{arm}: {', '.join(_knob(knob, run.config) for knob in knobs)}", run)
        for arm, knobs in grids.items()
        for place in sorted((folder / "tuning" / arm).glob("*/seed-*"), key=_natural)
        if _is_finished(place)
        for run in [read(place, notes)]
    ]
    return done, len(places) - len(done), points


def _is_finished(folder: Path) -> bool:
    return is_run(folder) and (folder / "final").is_dir()


def _natural(path: Path) -> list[tuple[float, str]]:
    """Sort key of a path in which numbers are compared as numbers."""
    parts = re.findall(r"(\d+(?:\.\d+)?)|(\D+)", str(path))
    return [(float(number or -1), text) for number, text in parts]


def _knob(knob: str, config: Mapping[str, Any]) -> str:
    """Write a knob with its value in a configuration: `β = 0.1`."""
    value: Any = config
    for key in knob.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    name = knob.rpartition(".")[2]
    return f"{'β' if name == 'beta' else name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"


def _series(runs: Sequence[tuple[str, Drawn]]) -> Iterator[Series]:
    """Join the runs that have a name and all knobs but the seed in common; make the names of the others different."""
    groups: list[tuple[str, list[Drawn]]] = []
    for name, run in runs:
        for other, members in groups:
            if other == name and _knobs(members[0]) == _knobs(run):
                members.append(run)
                break
        else:
            groups.append((name, [run]))
    names = [name for name, _ in groups]
    for (name, members), label in zip(groups, _different(names, [m[0].folder for _, m in groups]), strict=True):
        yield Series(label if names.count(name) > 1 else name, tuple(members))


def _knobs(run: Drawn) -> dict[str, Any]:
    return {knob: value for knob, value in run.config.items() if knob not in OWN}


def _different(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the folders from the place on where they differ.

    >>> _different(["run", "run"], [Path("/runs/a/run"), Path("/runs/b/run")])
    ['a/run', 'b/run']
    """
    if len(folders) < 2:
        return list(names)
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder.parent if SEED.fullmatch(folder.name) else folder, common) for folder in folders]

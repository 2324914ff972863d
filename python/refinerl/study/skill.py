"""The figure of refiners of different skill: the audition's number against what the dynamic constraint gains.

python -m refinerl.study.skill FOLDER AUDITION.json … [--baseline ARM]

FOLDER is that of a study such as `miniature-skill`: a baseline without a refiner, and an arm for each refiner. The JSON
files are written by `python -m refinerl.audition FOLDER/ARM/seed-0/config.yaml --n 256 --output AUDITION.json`. An
audition matches the arms that have its model, task, refiner and filter. The command prints a table, and writes
FOLDER/skill.json and FOLDER/figures/skill.svg and .png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from refinerl import __version__
from refinerl.config import Config
from refinerl.data.terminal import answered
from refinerl.errors import UserError
from refinerl.report.export import save
from refinerl.report.figures import plots
from refinerl.report.missing import MissingError
from refinerl.run import recipe
from refinerl.study import correlation, results, runs
from refinerl.study.record import Record
from refinerl.study.table import COMPARED, Difference, Table, difference

SCHEMA = 1
MEASURES = ("held_out_end", "held_out_area")
"""Measures whose gain over the baseline is shown."""
NUMBERS = {"improvement_ratio": "improvement ratio", "gain": "reward gain"}
"""The audition's numbers, by their names in its JSON."""
SAME = ("model", "task.", "generation.", "refiner.", "constraint.accept", "chat_template")
"""Beginnings of the knobs that an audition and an arm have in common."""


@dataclass(frozen=True)
class Point:
    """A refiner: what its audition found, and what its arm gains over the baseline."""

    arm: str
    audition: Mapping[str, Any]
    """`n`, `improvement_ratio`, `gain`, their standard errors, and `fresh`, the improvement ratio of fresh answers."""
    gains: Mapping[str, Difference]
    """By measure, paired by seed."""

    def as_json(self) -> dict[str, Any]:
        """The point as a JSON object."""
        gains = {
            name: {"mean": found.mean, "se": found.error, "values": dict(found.values)}
            for name, found in self.gains.items()
        }
        return {"arm": self.arm, "audition": dict(self.audition), "gains": gains}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 2 for bad input, 130 if interrupted."""
    args = _parser().parse_args(arguments)
    return answered(lambda: _run(args, Console()))


def _run(args: argparse.Namespace, console: Console) -> int:
    points = read(args.folder, args.auditions, args.baseline)
    found = correlations(points)
    show(points, found, args.baseline, console)
    content = {"schema": SCHEMA, "baseline": args.baseline, "refiners": [point.as_json() for point in points]}
    save(args.folder / "skill.json", json.dumps(content | {"correlations": found}, indent=1) + "\n")
    try:
        draw(points, args.folder / "figures", args.baseline)
    except MissingError as missing:
        console.print(str(missing), highlight=False, markup=False, soft_wrap=True)
    except OSError as error:
        raise UserError(f"cannot write to {args.folder / 'figures'}: {error.strerror}") from error
    return 0


def read(folder: Path, auditions: Iterable[Path], baseline: str) -> list[Point]:
    """Read the points of a study's finished runs, in the order of its arms; arms without an audition are left out.

    Raises:
        UserError: the folder is no study's, the baseline has no finished run, an audition is damaged, matches no
            arm, or matches an arm that has one already.
    """
    known = Record.read(folder)
    if known is None:
        raise UserError(f"{folder} holds no study: name the --output-dir of python -m refinerl.study miniature-skill")
    finals = results.finals(folder, known)
    cells = Table.of(known, finals, {}).arms
    if baseline not in cells:
        raise UserError(f"{folder} has no finished run of {baseline!r}: choose --baseline of {', '.join(cells)}")
    configs = {arm: _config(folder, known, arm) for arm in cells if arm != baseline}
    found: dict[str, Point] = {}
    for path in auditions:
        config, numbers = _audition(path)
        mine = [arm for arm, of in configs.items() if of.refines and _same(config, of)]
        if not mine:
            raise UserError(_stranger(path, folder, config, configs))
        for arm in mine:
            if arm in found:
                raise UserError(f"{path} is a second audition of the arm {arm!r}: name one for each refiner")
            gains = {name: difference(cells, arm, baseline, name) for name in MEASURES}
            found[arm] = Point(arm, numbers, {name: gain for name, gain in gains.items() if gain is not None})
    return [found[arm] for arm in configs if arm in found]


def _config(folder: Path, known: Record, arm: str) -> Config:
    """Return the configuration of an arm's first finished run."""
    places = [folder / arm / f"seed-{seed}" for seed in known.seeds]
    return recipe.load_run(next(place for place in places if runs.is_finished(place)))


def _audition(path: Path) -> tuple[Config, dict[str, Any]]:
    """Read an audition: its configuration and its numbers.

    Raises:
        UserError: it cannot be read.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["schema"] == SCHEMA:
            refiner, control = values["columns"][0], values["columns"][-1]
            numbers = {
                "n": values["n"],
                "fresh": _number(control, "improvement_ratio"),
                **{name: _number(refiner, name) for name in NUMBERS},
                **{name: refiner[name] for name in ("improvement_error", "gain_error")},  # None for one question
            }
            return recipe.validate(values["config"]), numbers
    except UserError as error:
        raise UserError(
            f"{path} was written by another version of refinerl, run the audition again: {error}"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path} is not what python -m refinerl.audition --output writes ({type(error).__name__}: {error})"
        ) from error
    raise UserError(f"{path} has schema {values['schema']}, this version reads {SCHEMA}: run the audition again")


def _number(column: Mapping[str, Any], name: str) -> float:
    """Return a number of an audition's column. Raises TypeError if it is none."""
    if not isinstance(column[name], int | float):
        raise TypeError(f"{name} is {json.dumps(column[name])}")
    return float(column[name])


def _unlike(config: Config, arm: Config) -> list[str]:
    """List the knobs in which an audition and an arm have to agree and do not."""
    return [line for line in recipe.differences(config, arm) if line.startswith(SAME) and "_date:" not in line]


def _same(config: Config, arm: Config) -> bool:
    return not _unlike(config, arm)


def _stranger(path: Path, folder: Path, config: Config, configs: Mapping[str, Config]) -> str:
    """Return the message for an audition that matches no arm; it names a knob in which it differs from the closest."""
    refining = {arm: of for arm, of in configs.items() if of.refines}
    if not refining:
        return f"{folder} has no finished run with a refiner, so {path} matches none"
    arm = min(refining, key=lambda name: len(_unlike(config, refining[name])))
    (first, *_) = _unlike(config, refining[arm])
    return (
        f"{path} matches the refiner of no arm (the closest is {arm!r}, which differs in {first}): make the audition "
        f"with python -m refinerl.audition '{folder / arm}/seed-0/config.yaml' --output FILE.json"
    )


def correlations(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Correlate each number of the audition with each gain, over the refiners that have both.

    `ranks` is Spearman's correlation, `linear` Pearson's; None if a side has one value only. `chance` is the share of
    all orders of the refiners with a rank correlation at least as far from 0; None for many refiners.
    """
    found = []
    for number, measure in itertools.product(NUMBERS, MEASURES):
        both = [(p.audition[number], p.gains[measure].mean) for p in points if measure in p.gains]
        xs, ys = [x for x, _ in both], [y for _, y in both]
        values = {
            "ranks": correlation.spearman(xs, ys),
            "linear": correlation.pearson(xs, ys),
            "chance": correlation.chance(xs, ys),
        }
        found.append({"number": number, "measure": measure, "refiners": len(both), **values})
    return found


def show(points: Sequence[Point], found: Sequence[Mapping[str, Any]], baseline: str, console: Console) -> None:
    """Print the refiners, and a line for each correlation."""
    drawn = Drawn(box=None, padding=(0, 1, 0, 0))
    drawn.add_column("arm", overflow="fold")
    for head in ("improved", "reward gain", "fresh", "gain, end", "gain, area"):
        drawn.add_column(head, justify="right", overflow="fold")
    for point in points:
        audition = point.audition
        cells = [
            _with_error(audition["improvement_ratio"], audition["improvement_error"]),
            _with_error(audition["gain"], audition["gain_error"]),
            f"{audition['fresh']:.3f}",
            *(_with_error(gain.mean, gain.error) if (gain := point.gains.get(m)) else "" for m in MEASURES),
        ]
        drawn.add_row(Text(point.arm), *cells)
    console.print(drawn)
    for each in found:
        console.print(sentence(each, baseline), highlight=False, markup=False, soft_wrap=True)


def sentence(found: Mapping[str, Any], baseline: str) -> str:
    """Write a correlation as a line of text."""
    what = f"the audition's {NUMBERS[found['number']]} and the gain over {baseline} in {COMPARED[found['measure']]}"
    if found["ranks"] is None:
        return f"{what}: no correlation, because {found['refiners']} refiners are too few, or all equal"
    by = "" if found["chance"] is None else f"; {found['chance']:.1%} of all orders are at least as far from 0"
    return f"{what}: rank correlation {found['ranks']:+.2f} over {found['refiners']} refiners{by}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" + ("" if error is None else f"±{error:.3f}")


def draw(points: Sequence[Point], folder: Path, baseline: str) -> None:
    """Write skill.svg and skill.png: a panel for each measure, a point with its standard errors for each refiner.

    Raises:
        MissingError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    folder.mkdir(exist_ok=True)
    fresh = statistics.fmean(point.audition["fresh"] for point in points)
    with plots.canvas(1, len(MEASURES)) as (canvas, axes):
        for axis, measure in zip(axes[0], MEASURES, strict=True):
            for number, point in enumerate(p for p in points if measure in p.gains):
                x, gain = point.audition["improvement_ratio"], point.gains[measure]
                errors = {"xerr": point.audition["improvement_error"] or 0.0, "yerr": gain.error or 0.0}
                axis.errorbar([x], [gain.mean], fmt="o", color=f"C{number % 10}", capsize=2, **errors)
                axis.annotate(plots.plain(point.arm), (x, gain.mean), xytext=(6, 6), textcoords="offset points")
            axis.axhline(0, color="0.5", lw=0.8)
            axis.axvline(fresh, color="0.5", lw=0.8, ls=":", label="fresh answers in the audition")
            axis.set_xlabel("improvement ratio in the audition")
            axis.set_ylabel(f"gain over {plots.plain(baseline)}")
            axis.set_title(COMPARED[measure], fontsize=10)
            axis.grid(alpha=0.3)
            axis.margins(x=0.15)  # room for the last refiner's name
            axis.legend(fontsize=8, loc="lower right")
        canvas.suptitle("Does the audition predict the gain?")
        plots.save(canvas, folder / "skill")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.study.skill",
        description="Draw what the dynamic constraint gains against the audition's number, for a study's refiners.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a study with an arm for each refiner")
    parser.add_argument("auditions", type=Path, nargs="+", metavar="AUDITION.json", help="one for each refiner")
    parser.add_argument("--baseline", default="none", metavar="ARM", help="the arm without a refiner (default: none)")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The runs of a study: each arm's configuration, checked before the first run starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from refinerl.config import Config
from refinerl.errors import UserError, closest
from refinerl.run import recipe
from refinerl.run.places import Home, settle
from refinerl.study import file, runs
from refinerl.study.file import Study


@dataclass(frozen=True)
class Trial:
    """One run."""

    arm: str
    seed: int
    arguments: tuple[str, ...]
    """Recipe, parts and overrides."""
    config: Config
    folder: Path
    """Relative to the study's folder."""
    point: str = ""
    """The name of the grid's point that a tuning run tries; empty for a run of the study itself."""

    @property
    def name(self) -> str:
        """The run in messages, such as `static seed 0` or `static constraint.beta=0.1 seed 100`."""
        return " ".join(part for part in (self.arm, self.point, f"seed {self.seed}") if part)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.config.trainer.steps


@dataclass(frozen=True)
class Plan:
    """The chosen arms and seeds of a study, with the overrides of the command line."""

    name: str
    """The study's: the name of a shipped one, or that of its file without .yaml."""
    study: Study
    source: str
    """Path of the study's file, to which its paths are relative; empty for a shipped study."""
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()

    @staticmethod
    def make(
        source: str,
        *,
        arms: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Sequence[str] = (),
    ) -> Plan:
        """Load a study and check every run that it may need.

        Args:
            source: a shipped study's name or a file's path.
            arms: the arms to run; None: all.
            seeds: the seeds to run, which may be others than the study's; None: the study's.
            overrides: `key=value` for every arm; they win over the study's knobs.

        Raises:
            UserError: the study, an arm, a seed, the recipe or a knob cannot be used.
        """
        study = file.load(source)
        if arms is not None and not arms:
            raise UserError(f"--arms names no arm; the arms are {', '.join(study.arms)}")
        for name in arms or ():
            if name not in study.arms:
                near = closest(name, list(study.arms))
                raise UserError(f"--arms names the unknown arm {name!r}{near}; the arms are {', '.join(study.arms)}")
        chosen = tuple(name for name in study.arms if arms is None or name in arms)
        plan = Plan(
            name=Path(source).stem if file.is_path(source) else source,
            study=study,
            source=source if file.is_path(source) else "",
            arms=chosen,
            seeds=study.seeds if seeds is None else tuple(seeds),
            overrides=tuple(overrides),
        )
        plan._check()
        return plan

    def _check(self) -> None:
        try:
            file.check_seeds("--seeds", self.seeds)
        except ValueError as error:
            raise UserError(str(error)) from error
        tuning = self.study.tuning
        if any(override.partition("=")[0] == "seed" for override in self.overrides):
            raise UserError("the knob seed is set by the study: choose seeds with --seeds")
        if tuning and (both := set(self.seeds) & set(tuning.seeds)):
            raise UserError(f"--seeds has {min(both)}, which is a seed of the tuning: choose others")
        for name in self.arms:
            for trial in (self.final(name, self.seeds[0], {}), *self.tuning(name)):
                held_out = tuning is not None and tuning.measure.startswith("held_out")
                if trial.point and held_out and not trial.config.evaluate.every:
                    raise UserError(
                        f"arm {name!r}: its tuning goes by {tuning and tuning.measure}, so it needs evaluations: set "
                        "evaluate.every, or tuning.measure: reward_end"
                    )

    def final(self, arm: str, seed: int, chosen: Mapping[str, Any]) -> Trial:
        """Return an arm's run of the study itself, with the chosen point of its grid.

        Raises:
            UserError: its configuration is not valid.
        """
        return self._trial(arm, seed, dict(chosen), Path(arm) / f"seed-{seed}", "")

    @property
    def home(self) -> Path:
        """Folder of the study's file; the working directory for a shipped study."""
        return Path(self.source).parent

    @property
    def configs(self) -> list[Config]:
        """The configuration of each arm's first run."""
        return [self.final(arm, self.seeds[0], {}).config for arm in self.arms]

    def tuning(self, arm: str) -> list[Trial]:
        """Return an arm's tuning runs, point by point; [] without a grid.

        Raises:
            UserError: a configuration is not valid.
        """
        tuning, points = self.study.tuning, self.study.arms[arm].points
        if tuning is None:
            return []
        return [
            self._trial(
                arm, seed, tuning.knobs | point, Path("tuning") / arm / folder(point) / f"seed-{seed}", label(point)
            )
            for point in points
            for seed in tuning.seeds
        ]

    def _trial(self, arm: str, seed: int, knobs: Mapping[str, Any], place: Path, point: str) -> Trial:
        given = self.study.set | self.study.arms[arm].knobs | dict(knobs)
        first, *parts = (self._resolved(word) for word in self.study.recipe.split())
        try:
            overrides = [*runs.words(self._settled(given)), *self.overrides, f"seed={seed}"]
            config = recipe.load(first, [*parts, *overrides])
        except UserError as error:
            raise UserError(f"arm {arm!r}: {error}") from error
        arguments = (first, *parts, *overrides)
        return Trial(arm, seed, arguments, config, place, point)

    def _settled(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """Make the paths of a study's file absolute. Raises UserError if one does not exist."""
        if not self.source:
            return dict(knobs)
        nested: Any = OmegaConf.to_container(OmegaConf.from_dotlist(runs.words(knobs)), resolve=False)
        settle(nested, dict.fromkeys(knobs, Home(self.home.absolute(), self.source)))
        return {
            key: reduce(lambda section, name: section[name], key.split("."), nested)
            if isinstance(value, str)
            else value
            for key, value in knobs.items()
        }

    def _resolved(self, word: str) -> str:
        return str(self.home / word) if file.is_path(word) else word

    def differences(self, arm: str) -> list[str]:
        """List an arm's knobs that differ from the recipe's, as `key: the recipe's -> the arm's`."""
        first, *parts = (self._resolved(word) for word in self.study.recipe.split())
        try:
            base = recipe.load(first, [*parts, *self.overrides])
        except UserError:  # a recipe that lacks what each arm adds
            return runs.words(self.study.set | self.study.arms[arm].knobs)
        changed = recipe.differences(base, self.final(arm, base.seed, {}).config)
        return [line for line in changed if not line.startswith("seed:")]


def label(point: Mapping[str, Any]) -> str:
    """Name a grid's point in messages, such as `constraint.beta=0.1`."""
    return " ".join(f"{knob}={value}" for knob, value in point.items())


def folder(point: Mapping[str, Any]) -> str:
    """Name the folder of a grid's point: its values, such as `0.1`."""
    return re.sub(r"[^\w.+-]", "_", "_".join(str(value) for value in point.values()))

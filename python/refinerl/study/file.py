"""The file of a study: arms × seeds of one recipe, a grid for arms that have one, and pairs of arms to compare."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from refinerl.errors import UserError, closest, listed

Measure = Literal["held_out_end", "held_out_area", "held_out_best", "reward_end"]
"""Measures by which a grid's best value is chosen: the names of the table. Higher is better."""

RESERVED = ("tuning", "figures", "study.yaml", "table.md", "table.json", "skill.json", "index.html")
"""Names of folders and files beside the arms' folders."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+=-]*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Part):
    """One arm: knobs on top of the study's, and values to try."""

    knobs: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    """Values to try, by knob; several knobs are combined."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise ValueError(f"an arm is a mapping of knobs to values, got {given!r}")
        return {"grid": given.get("grid", {}), "knobs": {key: given[key] for key in given if key != "grid"}}

    @field_validator("grid")
    @classmethod
    def _has_values(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for knob, values in grid.items():
            if not values or any(a == b for a, b in itertools.combinations(values, 2)):
                raise ValueError(f"grid.{knob} must be a list of different values, got {values!r}")
        return grid

    @property
    def points(self) -> list[dict[str, Any]]:
        """Return the points of the grid in order, as knobs; [] without a grid."""
        if not self.grid:
            return []
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


class Tuning(_Part):
    """The runs that choose a grid's best point."""

    seeds: tuple[int, ...] = Field(min_length=1)
    measure: Measure = "held_out_end"
    knobs: dict[str, Any] = {}
    """Knobs of these runs alone, such as `trainer.steps`."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise ValueError(f"tuning is a mapping with seeds, measure and knobs, got {given!r}")
        own = {key: given[key] for key in ("seeds", "measure") if key in given}
        return {**own, "knobs": {key: value for key, value in given.items() if key not in ("seeds", "measure")}}


class Study(_Part):
    """A study as its file has it."""

    title: str
    recipe: str
    """A recipe with parts, as on the command line of `refinerl.train`."""
    set: dict[str, Any] = {}
    """Knobs of every arm."""
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: dict[str, Arm] = Field(min_length=1)
    tuning: Tuning | None = None
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs of arms: is the first one higher than the second?"""
    about: str = ""
    """A text for the page."""

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name) or name in RESERVED:
                raise ValueError(
                    f"arm {name!r}: a name has letters, digits, spaces and ._+=- and is none of {', '.join(RESERVED)}"
                )
            if arm.grid and self.tuning is None:
                raise ValueError(f"arm {name!r} has a grid, but the study has no tuning: add tuning: {{seeds: [100]}}")
        for pair in self.compare:
            for name in pair:
                if name not in self.arms:
                    raise ValueError(f"compare names the unknown arm {name!r}{closest(name, list(self.arms))}")
            if pair[0] == pair[1]:
                raise ValueError(f"compare has the arm {pair[0]!r} with itself")
        every = {"seeds": self.seeds} | ({"tuning.seeds": self.tuning.seeds} if self.tuning else {})
        for where, seeds in every.items():
            check_seeds(where, seeds)
        if self.tuning and (both := set(self.seeds) & set(self.tuning.seeds)):
            raise ValueError(f"seed {min(both)} is in seeds and in tuning.seeds: choose others for the tuning")
        knobs = [self.set, *((arm.knobs | arm.grid) for arm in self.arms.values())]
        if any("seed" in some for some in [*knobs, self.tuning.knobs if self.tuning else {}]):
            raise ValueError("the knob seed is set by the study: write its values in seeds")
        return self


def check_seeds(where: str, seeds: tuple[int, ...]) -> None:
    """Check that seeds are different and not negative.

    Raises:
        ValueError: they are not.
    """
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"{where} must be different numbers from 0 on, got {list(seeds)}")


def shipped() -> dict[str, str]:
    """Return the shipped studies: name -> first line of the comment."""
    place = resources.files("refinerl") / "recipes" / "studies"
    if not place.is_dir():
        return {}
    found = {file.name[:-5]: file.read_text("utf-8") for file in place.iterdir() if file.name.endswith(".yaml")}
    return {name: text.splitlines()[0].lstrip("# ") for name, text in sorted(found.items())}


def is_path(name: str) -> bool:
    """Return True for the path of a study's file, False for a shipped study's name."""
    return name.endswith((".yaml", ".yml"))


def load(name: str) -> Study:
    """Load a shipped study by its name, or the file at a path that ends in .yaml.

    Paths in a study's file are relative to it, as in a recipe.

    Raises:
        UserError: there is no such study, or the file breaks a rule, which the message names.
    """
    return parse(name, read(name))


def read(name: str) -> str:
    """Return the text of a shipped study or of a study's file.

    Raises:
        UserError: there is none.
    """
    if is_path(name):
        try:
            return Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UserError(f"the study {name!r} cannot be read: {reason}") from error
    if name in shipped():
        return (resources.files("refinerl") / "recipes" / "studies" / f"{name}.yaml").read_text("utf-8")
    there = f"the studies are {', '.join(shipped())}; " if shipped() else ""
    raise UserError(f"unknown study {name!r}{closest(name, list(shipped()))}: {there}a file of your own ends in .yaml")


def comment(name: str) -> list[str]:
    """Return the lines of the comment that a study's file begins with, without their `#`. Raises as `read`."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), read(name).splitlines())
    return [line[1:].removeprefix(" ") for line in lines]


def parse(name: str, text: str) -> Study:
    """Read a study's text; `name` is for messages.

    Raises:
        UserError: it breaks a rule.
    """
    try:
        values = content(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"the study {name!r}: {_reason(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"the study {name!r} must be a mapping with title, recipe, seeds and arms")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise UserError(f"the study {name!r}: {listed([_explain(one) for one in error.errors()])}") from None


def content(text: str) -> Any:
    """Return what a YAML text holds; a mapping must not have a key twice.

    Raises:
        yaml.YAMLError, OmegaConfBaseException, ValueError: it is no YAML, or a key repeats.
    """
    plain = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # as OmegaConf, which takes no scalar
    if not isinstance(plain, dict):
        return plain
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)  # refuses keys that repeat


def _reason(error: Exception) -> str:
    """Say in one line why a text is no YAML, or which key a mapping has twice."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).splitlines()[0]
    line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    key = (error.problem or "").partition("duplicate key ")[2]
    return line + (
        f"{key} is there twice: give each arm and each knob a name of its own" if key else str(error.problem)
    )


def _explain(error: Any) -> str:
    where, message = ".".join(map(str, error["loc"])).removesuffix(".[key]"), str(error["msg"])
    if error["loc"][-1:] == ("[key]",):
        return f"{where}: the name {error['input']!r} is not a text: put it in quotes"
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}{closest(where, list(Study.model_fields))}"
    if error["type"] == "value_error":
        return f"{where}: {message[13:]}" if where else message[13:]
    if error["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {message[0].lower()}{message[1:]}, got {error['input']!r}"

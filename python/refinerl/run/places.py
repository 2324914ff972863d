"""Paths in recipes, which are relative to the recipe that sets them; others are relative to the working directory.

The knobs that hold paths are those whose type is marked by `refinerl.contracts.options.Place`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from refinerl.config import DEFAULT, Config
from refinerl.contracts.options import Place
from refinerl.contracts.plugins import Kind, resolve
from refinerl.engines import bundled
from refinerl.errors import UserError


@dataclass(frozen=True)
class Home:
    """The folder that the paths of a layer of knobs are relative to."""

    folder: Path
    recipe: str | None = None
    """The recipe file that sets the knobs; None: the command line, whose paths may also be anything else."""


@dataclass(frozen=True)
class Knob:
    """A knob that holds a path."""

    section: dict[str, Any]
    leaf: str
    key: str
    """The dotted name."""
    place: Place


def settle(values: dict[str, Any], homes: Mapping[str, Home]) -> None:
    """Make the paths in nested knobs absolute, in place; names, texts and addresses stay as they are.

    Args:
        values: sections of knobs, before validation.
        homes: the home of each dotted key, or of the section or list that holds it; knobs without one stay as they are.

    Raises:
        UserError: a recipe names a file that does not exist.
    """
    for knob in _knobs(Config, values):
        key = knob.key
        while key and key not in homes:
            key = key.rpartition(".")[0]
        value = knob.section[knob.leaf]
        if key and isinstance(value, str):
            knob.section[knob.leaf] = _absolute(value, knob, homes[key])


def place_of(field: FieldInfo) -> Place | None:
    """Return the mark of a knob's type, or of the type besides None; None if it has none."""
    inner = [extra for kind in get_args(field.annotation) if get_origin(kind) is Annotated for extra in get_args(kind)]
    return next((extra for extra in (*field.metadata, *inner) if isinstance(extra, Place)), None)


def _knobs(model: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[Knob]:
    """Find the knobs with paths that are set; sections of a class's options are read by the options of the class."""
    for name, field in model.model_fields.items():
        value, kind = values.get(name), field.annotation
        if name == "constraints" and isinstance(value, list | tuple):
            for index, section in enumerate(value):
                yield from _in_class("constraint", section, f"{name}.{index}.")
        elif name in DEFAULT and not prefix:
            yield from _in_class(cast("Kind", name), value, f"{name}.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
            yield from _knobs(kind, value, f"{prefix}{name}.")
        elif (place := place_of(field)) and value is not None and isinstance(values, dict):
            yield Knob(values, name, prefix + name, place)


def _in_class(kind: Kind, section: Any, prefix: str) -> Iterator[Knob]:
    if not isinstance(section, dict):
        return
    name = section.get("name") or DEFAULT[kind]
    try:
        options = resolve(kind, name).Options if isinstance(name, str) else None
    except (UserError, TypeError):
        options = None
    if options is None:  # reported when the configuration is validated
        return
    yield from _knobs(options, section, prefix)
    if isinstance(section.get("options"), dict):
        yield from _knobs(options, section["options"], f"{prefix}options.")


def _absolute(value: str, knob: Knob, home: Home) -> str:
    kind = knob.place.kind
    if value.startswith("~"):
        return os.path.expanduser(value)
    bare = os.sep not in value and not Path(value).suffix
    if os.path.isabs(value) or _is_address(value):
        return value
    if kind == "model" and value.lower() in bundled.NAMES:
        return value
    if kind == "template" and (bare or "{" in value or "\n" in value):  # a name of tasks/prompts, or Jinja text
        return value
    there = {"data": os.path.exists, "model": os.path.isdir, "template": os.path.isfile}[kind]
    path, elsewhere = home.folder / value, Path.cwd() / value
    if there(path):
        return os.path.abspath(path)
    if home.recipe is None:
        return value
    known = there(elsewhere)
    if not known and (bare or kind == "model") and not value.startswith("."):  # the name of a model or a data set
        return value
    raise UserError(
        f"{knob.key} = {value} is relative to {home.recipe}, which sets it, and there is no {path}; "
        + (f"{elsewhere} exists, so write its whole path" if known else f"there is no {elsewhere} either")
    )


def _is_address(value: str) -> bool:
    """True for `hub:OWNER/NAME`, `shipped:NAME` and `object:…`."""
    scheme, colon, _ = value.partition(":")
    return bool(colon) and scheme.isalpha()

"""Explanations of configurations that are not valid: the key, the rule that it breaks, and what would work."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from refinerl.config import DEFAULT, Config
from refinerl.config.synonyms import ours
from refinerl.contracts import plugins
from refinerl.contracts.plugins import Kind, names
from refinerl.errors import similar


def explain(loc: tuple[int | str, ...], kind: str, message: str, value: Any, values: Any) -> str:
    """Describe an error of pydantic's in one sentence.

    Args:
        loc: the place of the value; with `kind`, `message` and `value` as pydantic has them.
        values: all knobs, nested, before validation.
    """
    key, own = _in_its_class(loc, values)
    if kind in ("model_type", "model_attributes_type", "dict_type") or (kind == "tuple_type" and key == "constraints"):
        return _no_section(key, loc, value)
    if kind == "tuple_type":
        return f"{key} must be a list, such as {key}=[{value}], got {value!r}"
    if kind == "string_type" and loc[-1] == "device":
        return f"{key} must be auto, cpu, cuda or cuda:N, such as {key}=cuda:{value}, got {value!r}"
    if kind == "extra_forbidden" and len(loc) == 1 and key in knobs():
        *sections, leaf = key.split(".")
        return (
            f"{key!r} is nested in a file: write {': {'.join(sections)}: {{{leaf}: {value}}}{'}' * (len(sections) - 1)}"
        )
    if kind == "extra_forbidden":
        if (here := ours(key, value)) and here.split(",")[0] != key:
            return f"unknown key {key!r}: it is {here} here"
        return f"unknown key {key!r}{closest(key, [*own, *knobs()])}"
    if kind == "value_error":
        said = message.removeprefix("Value error, ")
        # A constraint does not know that it stands in a list.
        return re.sub(r"\bconstraint\.", f"constraints.{loc[1]}.", said) if loc[:1] == ("constraints",) else said
    return f"{key}: {message[0].lower()}{message[1:]}, got {value!r}"


def _no_section(key: str, loc: tuple[int | str, ...], value: Any) -> str:
    """Describe a value in the place of a section."""
    if loc[0] == "constraints":
        return f"{key} must be a section, such as constraints=[{{name: static, beta: 0.01}}], got {value!r}"
    if key in DEFAULT:
        return (
            f"{key} is a section, got {value!r}: write {key}.name={value if isinstance(value, str) else DEFAULT[key]}"
        )
    inner = next((name for name in knobs() if name.startswith(f"{key}.")), f"{key}.zero_optimization.stage")
    return f"{key} is a section, got {value!r}: write its knobs one by one, such as {inner}=…"


def _in_its_class(loc: tuple[int | str, ...], values: Any) -> tuple[str, list[str]]:
    """Return a key as the user wrote it, and the keys that its section has for the class that it names."""
    kind: Kind
    match loc:
        case ("task" | "algorithm" | "constraint" as kind, str()):
            section, prefix = values[kind], str(kind)
        case ("constraints", int(), str()):
            kind, section, prefix = "constraint", values["constraints"][loc[1]], f"constraints.{loc[1]}"
        case _:
            return ".".join(map(str, loc)), []
    name, leaf = section.get("name") or DEFAULT[kind], str(loc[-1])
    model = plugins.resolve(kind, name).Options
    nest = ".options" if ":" in name else ""
    own = [f"{prefix}{'' if key in model.common else nest}.{key}" for key in model.model_fields]
    others = [f"{prefix}.{key}" for part in names(kind) for key in plugins.resolve(kind, part).Options.model_fields]
    written = ".options" if leaf in (section.get("options") or {}) else ""
    return f"{prefix}{written}.{leaf}", [*own, *dict.fromkeys(others)]


def closest(word: str, known: list[str]) -> str:
    """Name known keys that are like a wrong one, as the end of a sentence; nothing if there is none."""
    section, _, leaf = word.rpartition(".")
    leaves = {key: key.split(".")[-1] for key in known}
    by_leaf = [key for key, name in leaves.items() if name == leaf]
    by_initials = [key for key, name in leaves.items() if "".join(part[:1] for part in name.split("_")) == leaf]
    in_leaf = [key for key, name in leaves.items() if similar(leaf, [name], cutoff=1.0)]
    for found in (by_initials, in_leaf):
        found.sort(key=lambda key: key.rpartition(".")[0] != section)  # keys of the same section first
    close = list(dict.fromkeys([*by_leaf, *by_initials, *in_leaf, *similar(word, known)]))[:3]
    return f"; closest: {', '.join(close)}" if close else ""


def knobs(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return the dotted names of all knobs, without the options of the classes."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, BaseModel)
        found += knobs(kind, f"{prefix}{name}.") if inner else [prefix + name]
    return found

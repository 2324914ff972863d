"""Recipe and dotted overrides -> a validated `Config`; every mistake is named with its key and the rule."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from refinerl.config import DEFAULT, Config
from refinerl.contracts.plugins import Kind, names, resolve
from refinerl.errors import UserError

DEFAULT_RECIPE = "demo"


def recipes() -> dict[str, str]:
    """Names of the shipped recipes and the first comment line of each."""
    return _described("")


def parts() -> dict[str, str]:
    """The same of the parts that recipes are made of, and that may follow a recipe's name, such as `gpus-4`."""
    return _described("parts")


def load(recipe: str | None, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Config:
    """The shipped recipe of this name, or the YAML file at this path, with overrides such as `constraint.beta=3e-4`.

    None is the recipe that says nothing: the defaults of all knobs. `values` are overrides as Python has them, by
    dotted key, and come last.

    Among the overrides may be names of parts and files, which are laid over the recipe in their order; all that is
    key=value comes after them. A recipe may say `base: [names]`: it is laid over those. Its `let` holds values that
    only interpolations read, such as `${let.gpus}`.

    Raises:
        UserError: an unknown recipe or key (the closest ones are named), a value that breaks its rule.
    """
    overlays = [word for word in overrides if "=" not in word]
    if recipe in parts():
        first = next((word for word in overlays if word in recipes()), "apps-dapo")
        raise UserError(f"{recipe!r} is a part, and a recipe comes before its parts: {first} {recipe}; see --list")
    for word in overlays:
        if word in recipes():
            raise UserError(f"{word!r} is a recipe, and so is {recipe!r}: name one of them, then parts; see --list")
        if not word.endswith(_YAML) and word not in parts():
            raise UserError(
                f"{word!r} is neither an override (key=value) nor a part{_closest(word, list(parts()))}; the parts are "
                f"{', '.join(parts())}"
            )
    dotted = [word for word in overrides if "=" in word]
    try:
        layers = [_read(name, ()) for name in (recipe, *overlays) if name is not None]
        merged = OmegaConf.merge(*layers, OmegaConf.from_dotlist(dotted), OmegaConf.create(_nested(values or {})))
        found: Any = OmegaConf.to_container(merged, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"recipe {recipe!r} with {' '.join(overrides) or 'no overrides'}: {error}") from error
    found.pop("let", None)
    return validate(found)


def validate(values: Any) -> Config:
    """A `Config` of nested plain values; raises UserError with one line for each mistake."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(
            "\n".join(_explain(e["loc"], e["type"], e["msg"], e["input"], values) for e in error.errors())
        ) from None


def to_yaml(config: Config) -> str:
    """The resolved configuration as a recipe: loading it gives the same configuration."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def differences(old: Config, new: Config) -> list[str]:
    """Lines `key: old -> new` for every knob that differs."""
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    keys = before | after  # the keys of `deepspeed` are free, so either may lack some
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections within sections; tuples and paths as YAML has them."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"{key} is given twice: a whole section and a knob of it")
        section[leaf] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return tree


_YAML = (".yaml", ".yml")


def _described(folder: str) -> dict[str, str]:
    place = resources.files("refinerl") / "recipes" / folder
    found = {file.name[:-5]: file.read_text() for file in place.iterdir() if file.name.endswith(".yaml")}
    return {name: text.splitlines()[0].lstrip("# ") for name, text in sorted(found.items())}


def _read(name: str, above: tuple[str, ...]) -> Any:
    """The recipe or part laid over its bases; `above` are those that named it as theirs."""
    if name in above:
        raise UserError(f"recipe {name!r} is its own base: {' -> '.join((*above, name))}")
    layer: Any = OmegaConf.create(_text(name))
    if not OmegaConf.is_dict(layer):
        raise UserError(f"recipe {name!r} must be a mapping of keys to values")
    plain: Any = OmegaConf.to_container(layer)
    bases = plain.get("base", [])
    layer.pop("base", None)
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"recipe {name!r}: base must be a name or a list of names, got {bases}")
    home = Path(name).parent if name.endswith(_YAML) else Path()
    places = [str(home / base) if base.endswith(_YAML) else base for base in bases]
    return OmegaConf.merge(*(_read(place, (*above, name)) for place in places), layer)


def _text(recipe: str) -> str:
    if recipe.endswith(_YAML):
        try:
            return Path(recipe).read_text()
        except OSError as error:
            raise UserError(f"recipe file {recipe!r} cannot be read: {error.strerror}") from error
    folder = resources.files("refinerl") / "recipes"
    if recipe in recipes():
        return (folder / f"{recipe}.yaml").read_text()
    if recipe in parts():
        return (folder / "parts" / f"{recipe}.yaml").read_text()
    raise UserError(f"unknown recipe {recipe!r}{_closest(recipe, list(recipes()))}; see --list")


def _explain(loc: tuple[int | str, ...], kind: str, message: str, value: Any, values: Any) -> str:
    key, own = _in_its_class(loc, values)
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{_closest(key, [*own, *_flatten(_keys(Config))])}"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {value!r}"


def _in_its_class(loc: tuple[int | str, ...], values: Any) -> tuple[str, list[str]]:
    """A key as it was written, and those that its section has by the class that the section names."""
    kind: Kind
    match loc:
        case ("task" | "algorithm" | "constraint" as kind, str()):
            section, prefix = values[kind], str(kind)
        case ("constraints", int(), str()):
            kind, section, prefix = "constraint", values["constraints"][loc[1]], f"constraints.{loc[1]}"
        case _:
            return ".".join(map(str, loc)), []
    name, leaf = section.get("name") or DEFAULT[kind], str(loc[-1])
    model = resolve(kind, name).Options
    nest = ".options" if ":" in name else ""
    own = [f"{prefix}{'' if key in model.common else nest}.{key}" for key in model.model_fields]
    others = [f"{prefix}.{key}" for part in names(kind) for key in resolve(kind, part).Options.model_fields]
    written = ".options" if leaf in (section.get("options") or {}) else ""
    return f"{prefix}{written}.{leaf}", [*own, *dict.fromkeys(others)]


def _closest(word: str, known: list[str]) -> str:
    leaf = word.split(".")[-1]
    leaves = {key: key.split(".")[-1] for key in known}
    by_leaf = [key for key, name in leaves.items() if name == leaf]
    by_initials = [key for key, name in leaves.items() if "".join(part[:1] for part in name.split("_")) == leaf]
    by_initials.sort(key=lambda key: key.rpartition(".")[0] != word.rpartition(".")[0])  # its own section first
    close = list(dict.fromkeys(by_leaf + by_initials + difflib.get_close_matches(word, known, n=3, cutoff=0.5)))[:3]
    return f"; closest: {', '.join(close)}" if close else ""


def _keys(model: type[BaseModel]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        keys[name] = _keys(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return keys


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat

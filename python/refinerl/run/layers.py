"""The layers of knobs that a configuration is merged from: recipes with their bases, parts, files, words and values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from refinerl.errors import UserError, closest
from refinerl.run.places import Home


def recipes() -> dict[str, str]:
    """Return the shipped recipes: name -> first line of the comment."""
    return _described("")


def parts() -> dict[str, str]:
    """Return the parts that recipes consist of, such as `gpus-4`: name -> first line of the comment."""
    return _described("parts")


YAML = (".yaml", ".yml")
"""Suffixes of recipe files; other names are those of shipped recipes and parts."""


def _described(folder: str) -> dict[str, str]:
    place = resources.files("refinerl") / "recipes" / folder
    found = {file.name[:-5]: file.read_text() for file in place.iterdir() if file.name.endswith(".yaml")}
    return {name: text.splitlines()[0].lstrip("# ") for name, text in sorted(found.items())}


Layer = tuple[Any, dict[str, Home | None]]
"""Knobs, and for each dotted key the home of its paths; None for those of a shipped recipe, which names no files."""


def make_layer(knobs: Any, home: Home | None) -> Layer:
    """Make a layer of knobs that have the same home."""
    plain: Any = OmegaConf.to_container(knobs)
    return knobs, dict.fromkeys(flatten(plain), home)


def merge(layers: Sequence[Layer]) -> Layer:
    """Merge layers; the later ones win.

    Raises:
        UserError: one has a mapping where another has a list.
    """
    homes = {key: home for _, own in layers for key, home in own.items()}
    try:
        return OmegaConf.merge(*(knobs for knobs, _ in layers)), homes
    except TypeError as error:
        keys = [set(own) for _, own in layers]
        over = sorted(
            key for own in keys for key in own for other in keys if any(k.startswith(f"{key}.") for k in other)
        )
        where = over[0] if over else "a knob"
        raise UserError(
            f"{where} is a list in one place and a mapping in another: write a list, {where}=[…]; to YAML, a text with "
            "`: ` in it or `:` at its end is a mapping"
        ) from error


def read(name: str, above: tuple[str, ...]) -> Layer:
    """Read a recipe or a part and merge it into its bases; `above` are the recipes that name it as a base.

    Raises:
        UserError: it is unknown, cannot be read, is no mapping, or is its own base.
    """
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
    home = Path(name).parent if name.endswith(YAML) else Path()
    places = [str(home / base) if base.endswith(YAML) else base for base in bases]
    own = Home(home.absolute(), name) if name.endswith(YAML) else None
    return merge([*(read(place, (*above, name)) for place in places), make_layer(layer, own)])


def _text(recipe: str) -> str:
    if recipe.endswith(YAML):
        try:
            return Path(recipe).expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"recipe file {recipe!r} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"recipe file {recipe!r} is not UTF-8 (byte {error.start}): save it in this encoding"
            ) from error
    folder = resources.files("refinerl") / "recipes"
    if recipe in recipes():
        return (folder / f"{recipe}.yaml").read_text()
    if recipe in parts():
        return (folder / "parts" / f"{recipe}.yaml").read_text()
    if os.path.exists(recipe):
        raise UserError(
            f"{recipe!r} is no recipe: the name of a recipe file ends in .yaml; --list shows the shipped ones"
        )
    raise UserError(f"unknown recipe {recipe!r}{closest(recipe, list(recipes()))}; see --list")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested sections, and values into what YAML has.

    Raises:
        UserError: a section and a knob of it are given, or a value has no such form.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise UserError(f"{key} is given twice: a whole section and a knob of it")
        section[leaf] = _plain(key, value)
    return tree


def _plain(key: str, value: Any) -> Any:
    """Turn a knob's value into one that YAML has: a path, a dtype, a device, a number or array of NumPy or PyTorch.

    Raises:
        UserError: it has no such form.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, inner) for inner in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value).__module__ == "torch":  # which is not imported here
        return str(value).removeprefix("torch.")
    if value is None or isinstance(value, str | int | float):
        return value
    raise UserError(f"{key} must be a number, a text, a list or a mapping, got {type(value).__name__}")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested sections into dotted keys, the reverse of `nested`.

    >>> flatten({"seed": 1, "trainer": {"steps": 2}})
    {'seed': 1, 'trainer.steps': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat

"""Recipes, parts and overrides -> a validated `Config`. Errors name the key and the rule that it breaks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from refinerl.config import Config, reading
from refinerl.errors import UserError, closest, listed
from refinerl.run.layers import YAML, flatten, make_layer, merge, nested, read
from refinerl.run.layers import parts as parts
from refinerl.run.layers import recipes as recipes
from refinerl.run.mistakes import explain
from refinerl.run.places import Home, settle

DEFAULT_RECIPE = "demo"


@dataclass(frozen=True)
class Recipe:
    """A resolved configuration, and the knobs that the user set."""

    config: Config
    values: Mapping[str, Any]
    """All knobs that were set, nested, before validation."""
    own: tuple[str, ...] = ()
    """Dotted names of those that were set by words, by files of the user's or from Python, not by a shipped recipe."""

    def notes(self, *, device: str | None = None, planning: bool = False) -> list[str]:
        """Return a sentence for each group of the user's knobs that have no effect: those that the run does not read.

        A value that the run would have anyway, such as a default, is not worth a word.

        Args:
            device: the resolved device; None: the one that the configuration names.
            planning: leave out knobs that only a plan reads.
        """
        config = self.config if device is None else self.config.model_copy(update={"device": device})
        found = reading.unread(config, self.own, planning=planning)
        values, without = flatten(dict(self.values)), _settings(_without(self.values, found))
        same = [
            key
            for key in found
            if (values.get(key) == without[key] if key in without else reading.is_default(key, values.get(key)))
        ]
        return reading.sentences({key: said for key, said in found.items() if key not in same})


def load(recipe: str | None, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Config:
    """Load a recipe with parts and overrides.

    A recipe may have a key `base`, a list of names: it is merged into those. Its key `let` holds values for
    interpolations such as `${let.gpus}`.

    >>> load("smollm", ["gpus-2", "constraint.beta=3e-4"]).constraint.beta
    0.0003

    Args:
        recipe: a shipped recipe's name or the path of a YAML file; None: the defaults of all knobs.
        overrides: names of parts and files, which are merged into the recipe in order, and `key=value`, which come
            after them.
        values: further overrides by dotted key, as Python values. They come last.

    A path in a recipe file is relative to the file, one in `overrides` or `values` to the working directory. In the
    configuration, the path of whatever exists is absolute.

    Raises:
        UserError: a recipe or a key is unknown (similar ones are named), or a value breaks its rule.
    """
    return resolve(recipe, overrides, values).config


def resolve(
    recipe: str | None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    implied: Mapping[str, Any] | None = None,
) -> Recipe:
    """Load a recipe as `load` does, and record which knobs the user set.

    Args:
        recipe: as in `load`, with `overrides` and `values`.
        implied: further values by dotted key, which the user did not set as knobs. `values` come after them.

    Raises:
        UserError: as in `load`.
    """
    return _load(
        recipe,
        overrides,
        {**(implied or {}), **(values or {})},
        implied=set(flatten(nested(implied or {}))) - set(flatten(nested(values or {}))),
    )


def load_run(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Load the resolved configuration of a run, in which all paths are absolute, with overrides as in `load`.

    Raises:
        UserError: it cannot be read, or it is not valid with the overrides.
    """
    return resolve_run(folder, overrides).config


def resolve_run(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load the configuration of a run as `load_run` does; only the overrides count as set by the user."""
    return _load(str(folder / "config.yaml"), overrides, {}, resolved=True)


def _load(
    recipe: str | None,
    overrides: Sequence[str],
    values: Mapping[str, Any],
    *,
    implied: Collection[str] = (),
    resolved: bool = False,
) -> Recipe:
    """Load a recipe with parts and overrides; the paths of a `resolved` one stay as they are."""
    overlays = [word for word in overrides if "=" not in word]
    if recipe in parts():
        first = next((word for word in overlays if word in recipes()), "apps-dapo")
        raise UserError(f"{recipe!r} is a part, and a recipe comes before its parts: {first} {recipe}; see --list")
    for word in overlays:
        if word in recipes():
            raise UserError(f"{word!r} is a recipe, and so is {recipe!r}: name one of them, then parts; see --list")
        if not word.endswith(YAML) and word not in parts():
            raise UserError(
                f"{word!r} is neither an override (key=value) nor a part{closest(word, list(parts()))}; the parts are "
                f"{', '.join(parts())}"
            )
    dotted = [word for word in overrides if "=" in word]
    for word in dotted:
        _check_word(word)
    try:
        layers = [read(name, ()) for name in (recipe, *overlays) if name is not None]
        if resolved:
            layers[0] = layers[0][0], {}
        here = Home(Path.cwd())
        layers += [make_layer(OmegaConf.from_dotlist(dotted), here), make_layer(OmegaConf.create(nested(values)), here)]
        merged, homes = merge(layers)
        found: Any = OmegaConf.to_container(merged, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark) is not None:
            named = [word for word in (recipe, *overlays) if word is not None and word.endswith(YAML)]
            raise UserError(
                f"{' or '.join(named) or 'a word'} is not YAML: {error.problem} (line {mark.line + 1}, column "
                f"{mark.column + 1})"
            ) from error
        if recipe is None:
            raise UserError(f"the knobs: {str(error).splitlines()[0]}") from error
        raise UserError(f"recipe {recipe!r} with {' '.join(overrides) or 'no overrides'}: {error}") from error
    found.pop("let", None)
    homes = {key: home for key, home in homes.items() if home is not None and not key.startswith("let.")}
    settle(found, {key: home for key, home in homes.items() if home is not None})
    set_to = flatten(found)
    own = [key for key in homes if key not in implied and set_to.get(key) is not None]
    return Recipe(validate(found), found, tuple(_listed(own, set_to)))


def _check_word(word: str) -> None:
    """Refuse an override without a value, as of a variable that is not set, or with spaces around its sign.

    Raises:
        UserError: it is one; the message has the word to write.
    """
    key, _, value = word.partition("=")
    if not value.strip():
        raise UserError(f"{word!r} has no value: write one, or {key.strip()}=null for the default")
    if key != key.strip() or value != value.lstrip():
        raise UserError(f"{word!r} has spaces around its sign: write {key.strip()}={value.strip()}")


def validate(values: Any) -> Config:
    """Build a `Config` from nested plain values.

    Raises:
        UserError: they are not valid; of several mistakes the message has the number and a line for each.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        said = [explain(e["loc"], e["type"], e["msg"], e["input"], values) for e in error.errors()]
        raise UserError(listed(said)) from None


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as a recipe. Loading it gives the same configuration."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def differences(old: Config, new: Config) -> list[str]:
    """List the knobs that differ, as `key: old -> new`.

    >>> differences(load("smollm"), load("smollm", ["seed=3"]))
    ['seed: 0 -> 3']
    """
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    keys = before | after  # the section `deepspeed` may have any keys, so either may lack some
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _listed(keys: Sequence[str], values: Mapping[str, Any]) -> Iterator[str]:
    """Name the knobs of the sections in a list one by one, as `constraints.0.beta`."""
    for key in keys:
        value = values[key]
        if isinstance(value, list) and any(isinstance(section, dict) for section in value):
            for index, section in enumerate(value):
                yield from (f"{key}.{index}.{name}" for name in section)
        else:
            yield key


def _settings(config: Config | None) -> dict[str, Any]:
    """Return the dotted knobs of a configuration; those of a class of the user's stand under `options`."""
    return {} if config is None else flatten(config.model_dump(mode="json"))


def _without(values: Mapping[str, Any], keys: Collection[str]) -> Config | None:
    """Return the configuration without some knobs; None if it is not valid without them."""
    rest: dict[str, Any] = copy.deepcopy(dict(values))
    for key in keys:
        *sections, leaf = key.split(".")
        section: Any = rest
        for name in sections:
            section = section[int(name)] if isinstance(section, list) else section.get(name, {})
        section.pop(leaf, None)
    try:
        return validate(rest)
    except UserError:
        return None

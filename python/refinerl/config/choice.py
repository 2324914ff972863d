"""The sections `task`, `algorithm` and `constraint`: the options of the class that their `name` means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, create_model

from refinerl.contracts import plugins
from refinerl.contracts.options import AlgorithmOptions, ConstraintOptions, Options, Section, TaskOptions
from refinerl.errors import UserError


def class_of(kind: plugins.Kind, name: str) -> type[Any]:
    """The class that a name means; pydantic reports a ValueError with the key."""
    try:
        return plugins.resolve(kind, name)
    except UserError as error:
        raise ValueError(str(error)) from None


DEFAULT = {"task": "code", "algorithm": "dapo", "constraint": "dynamic"}
"""The part of each kind where a recipe names none."""


def _chosen(kind: plugins.Kind, given: Any) -> Any:
    """The section as the options of the class that it names.

    A key that only another built-in part has is checked and then left out: recipes are laid over each other, and a
    `config.yaml` of an earlier version holds the knobs of all parts. So is a key of a built-in task where the task is
    one of the user's own, whose options stand under `options`: its `path` would not be the recipe's.
    """
    if not isinstance(given, Mapping):
        return given
    name = given.get("name") or DEFAULT[kind]
    if not isinstance(name, str):
        raise ValueError(f"{kind}.name must be a name, got {name!r}")
    found = class_of(kind, name)
    model: type[Options] = found.Options
    if name.startswith(plugins.OBJECT):
        model = type(model.__name__, (model,), {"model_config": {"extra": "allow"}})
    own: dict[str, Any] = {}
    fields = model.common if kind == "task" and ":" in name else model.model_fields
    for key, value in given.items():
        other = None if key in fields or key == "options" else _of_another(kind, key)
        if other is None:
            own[key] = value
        elif value is not None:
            _check(kind, other, key, value)
    options = model.model_validate({**own, "name": name})
    if isinstance(options, AlgorithmOptions) and getattr(found, "grouped", False) and options.samples_per_prompt < 2:
        if "samples_per_prompt" in options.model_fields_set:
            raise ValueError(
                f"algorithm.samples_per_prompt must be at least 2 for {name}, which compares the members of a group, "
                f"got {options.samples_per_prompt}"
            )
        options.samples_per_prompt = GROUP
    return options


GROUP = 8
"""Responses to a prompt where an algorithm compares them and nobody says how many."""


def _of_another(kind: plugins.Kind, key: str) -> type[Options] | None:
    """The options of a built-in part that have the key."""
    models: list[type[Options]] = [plugins.resolve(kind, name).Options for name in plugins.names(kind)]
    return next((model for model in models if key in model.model_fields), None)


def _check(kind: plugins.Kind, model: type[Options], key: str, value: Any) -> None:
    field = model.model_fields[key]
    definition: dict[str, Any] = {key: (field.annotation, field)}
    one = create_model("One", __base__=Section, **definition)
    one.model_validate({key: value})


def _algorithm(given: Any) -> Any:
    return _chosen("algorithm", given)


def _constraint(given: Any) -> Any:
    return _chosen("constraint", given)


def _task(given: Any) -> Any:
    return _chosen("task", given)


AlgorithmConfig = Annotated[SerializeAsAny[AlgorithmOptions], BeforeValidator(_algorithm)]
ConstraintConfig = Annotated[SerializeAsAny[ConstraintOptions], BeforeValidator(_constraint)]
TaskConfig = Annotated[SerializeAsAny[TaskOptions], BeforeValidator(_task)]

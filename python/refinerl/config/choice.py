"""The sections `task`, `algorithm` and `constraint`: options of the class that their `name` refers to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, create_model

from refinerl.contracts import plugins
from refinerl.contracts.options import AlgorithmOptions, ConstraintOptions, Options, Section, TaskOptions
from refinerl.errors import UserError


def class_of(kind: plugins.Kind, name: str) -> type[Any]:
    """Return the class that a name refers to.

    Raises:
        ValueError: there is none. Pydantic adds the key to the message.
    """
    try:
        return plugins.resolve(kind, name)
    except UserError as error:
        raise ValueError(str(error)) from None


DEFAULT = {"task": "code", "algorithm": "dapo", "constraint": "dynamic"}
"""The part of each kind that is used if a recipe names none."""


def _chosen(kind: plugins.Kind, given: Any) -> Any:
    """Validate a section with the options of the class that it names.

    A key that belongs only to another built-in part is validated and dropped, because recipes are combined and because
    a `config.yaml` of an earlier version holds the knobs of all parts. The same applies to keys of the built-in tasks
    if the task is a class of the user's, whose options stand under `options`: its `path` need not mean the same.
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
                f"algorithm.samples_per_prompt must be at least 2 for {name}, which compares the responses to a "
                f"prompt, got {options.samples_per_prompt}"
            )
        options.samples_per_prompt = GROUP
    return options


GROUP = 8
"""Default number of responses to a prompt for algorithms that compare them."""


def _of_another(kind: plugins.Kind, key: str) -> type[Options] | None:
    """Find the options of a built-in part that have this key."""
    models: list[type[Options]] = [plugins.resolve(kind, name).Options for name in plugins.names(kind)]
    return next((model for model in models if key in model.model_fields), None)


def _check(kind: plugins.Kind, model: type[Options], key: str, value: Any) -> None:
    _alone(model, key).model_validate({key: value})


@cache
def _alone(model: type[Options], key: str) -> type[Section]:
    """Return a section with one of a model's knobs."""
    field = model.model_fields[key]
    definition: dict[str, Any] = {key: (field.annotation, field)}
    return create_model("One", __base__=Section, **definition)


def _algorithm(given: Any) -> Any:
    return _chosen("algorithm", given)


def _constraint(given: Any) -> Any:
    return _chosen("constraint", given)


def _task(given: Any) -> Any:
    return _chosen("task", given)


AlgorithmConfig = Annotated[SerializeAsAny[AlgorithmOptions], BeforeValidator(_algorithm)]
ConstraintConfig = Annotated[SerializeAsAny[ConstraintOptions], BeforeValidator(_constraint)]
TaskConfig = Annotated[SerializeAsAny[TaskOptions], BeforeValidator(_task)]

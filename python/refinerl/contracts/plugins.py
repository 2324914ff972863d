"""Resolution of names to classes: built-in parts by the name of their file, your own as `module:Class`.

A file in `algorithms/` or `constraints/` that holds a class of the kind is a built-in part; nothing lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from functools import cache
from typing import Any, Literal

from refinerl.errors import UserError, closest

Kind = Literal["algorithm", "constraint", "task"]

BASES = {
    "algorithm": ("refinerl.algorithms.base", "Algorithm"),
    "constraint": ("refinerl.constraints.base", "Constraint"),
    "task": ("refinerl.tasks.base", "Task"),
}
"""The base class of each kind of plug-in."""

TASKS = {"code": "refinerl.tasks.code:CodeTask", "dialogue": "refinerl.tasks.dialogue:DialogueTask"}
"""The built-in tasks. They are listed because their package holds other modules too, some of which import torch."""

OBJECT = "object:"
"""Prefix of the name of a part that was given as a Python object."""


def resolve(kind: Kind, name: str) -> type[Any]:
    """Return the class that a name refers to.

    >>> resolve("constraint", "static").__name__
    'Static'

    Raises:
        UserError: there is no such part, it does not derive from the base class of its kind, or it lacks a method; the
            message names similar parts. Exceptions raised by a module of the user's are passed on unchanged.
    """
    if name.startswith(OBJECT):
        handed = _handed.get(name, _base(kind))
        return handed if issubclass(handed, _base(kind)) else _base(kind)
    if ":" not in name:
        if name not in names(kind):
            raise UserError(f"{kind}.name must be {_choices(kind)}, got {name!r}{closest(name, names(kind))}")
        return _built_in(kind, name)
    found = load(name, f"{kind}.name")
    base = _base(kind)
    path = f"refinerl.{base.__module__.split('.')[1]}.{base.__name__}"
    if not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise UserError(f"{kind}.name={name} must be a class derived from {path}")
    options: Any = getattr(found, "Options", None)
    if not isinstance(options, type) or not issubclass(options, vars(base)["Options"]):
        raise UserError(f"{kind}.name={name}: its Options must derive from {base.__name__}.Options")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"{kind}.name={name} lacks the method {' and '.join(missing)}; {path} says what it must return")
    return found


def hand_over(part: object) -> str:
    """Register a part that was given as an object; return its name for the configuration.

    In this process the name resolves to the part's class, or to the base class of its kind if it derives from none.
    """
    name = f"{OBJECT}{type(part).__module__}.{type(part).__qualname__}"
    _handed[name] = type(part)
    return name


_handed: dict[str, type[Any]] = {}


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Return the names of the built-in parts of a kind.

    >>> "static" in names("constraint")
    True
    """
    if kind == "task":
        return tuple(TASKS)
    package = importlib.import_module(BASES[kind][0].rpartition(".")[0])
    files = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(name for name in files if name != "base" and _classes(kind, name))


def load(path: str, knob: str, form: str = "module:Class") -> Any:
    """Import what `module:name` means; `name` may be dotted.

    Args:
        knob: names the path in messages.
        form: the path's form in messages.

    >>> load("math:sqrt", "task.reward")(9)
    3.0

    Raises:
        UserError: the path has another form, the module does not exist, or it has no such name. An exception in the
            module itself is not caught.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UserError(f"{knob} must be given as {form}, got {path!r}")
    if not all(word.isidentifier() for word in module_name.split(".")) or module_name.endswith(".py"):
        stem = re.split(r"[/\\]", module_name)[-1].removesuffix(".py")
        raise UserError(
            f"{knob}={path}: {module_name!r} is no module's name; give {stem}:{name} with its folder on PYTHONPATH"
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # If the user's module exists but imports something that does not, its own traceback says more.
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        files = [module.name for module in pkgutil.iter_modules([place or "." for place in sys.path])]
        close = closest(module_name, files, cutoff=0.75)
        raise UserError(f"{knob}={path}: there is no module {module_name!r} on the Python path{close}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_")]
            raise UserError(f"{knob}={path}: {module_name} has no {name!r}{closest(part, public)}")
        found = getattr(found, part)
    return found


def _choices(kind: Kind) -> str:
    return f"{', '.join(names(kind))} or module:Class of your own"


def _base(kind: Kind) -> type[Any]:
    module, name = BASES[kind]
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _classes(kind: Kind, name: str) -> list[type[Any]]:
    module = importlib.import_module(f"{BASES[kind][0].rpartition('.')[0]}.{name}")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, _base(kind))
        and value.__module__ == module.__name__
        and not getattr(value, "__abstractmethods__", None)
    ]


def _built_in(kind: Kind, name: str) -> type[Any]:
    if kind == "task":
        task: type[Any] = load(TASKS[name], "task.name")
        return task
    (found,) = _classes(kind, name)
    return found

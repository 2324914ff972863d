"""Python types of MBPP+'s inputs that JSON lacks: tuples, sets and complex numbers, restored as evalplus does.

The numbers below are those of the tasks whose arguments have such types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arguments = list[Any]


def restored(task_id: str, arguments: Arguments) -> Arguments:
    """Restore the types of the arguments of one call of a task such as `Mbpp/2`.

    >>> restored("Mbpp/2", [[3, 4], [5, 4]])
    [(3, 4), (5, 4)]
    """
    rule = _RULES.get(int(task_id.rpartition("/")[2]))
    return arguments if rule is None else rule(arguments)


def _each(arguments: Arguments) -> Arguments:
    return [tuple(argument) for argument in arguments]


def _items_of_each(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in argument] for argument in arguments]


def _each_and_items(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) for item in argument) for argument in arguments]


def _items_of_first(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in arguments[0]], arguments[1]]


def _first(arguments: Arguments) -> Arguments:
    return [tuple(arguments[0]), *arguments[1:]]


def _second(arguments: Arguments) -> Arguments:
    return [arguments[0], tuple(arguments[1])]


def _sets(arguments: Arguments) -> Arguments:
    # evalplus makes an empty set a dict, and the expected answers follow it.
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _mixed(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])]


def _values(arguments: Arguments) -> Arguments:
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


def _deep(arguments: Arguments) -> Arguments:
    def freeze(value: Any) -> Any:
        return tuple(freeze(item) for item in value) if isinstance(value, list) else value

    return [freeze(argument) for argument in arguments]


def _float_and_complex(arguments: Arguments) -> Arguments:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: Arguments) -> Arguments:
    return [complex(arguments[0])]


_TASKS: list[tuple[Callable[[Arguments], Arguments], tuple[int, ...]]] = [
    (
        _each,
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    (_items_of_each, (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780)),
    (_each_and_items, (259, 401, 445)),
    (_items_of_first, (75, 413, 444, 753)),
    (_first, (250, 307, 405, 446, 617, 720, 763, 808)),
    (_second, (106, 750)),
    (_sets, (115,)),
    (_mixed, (278,)),
    (_values, (722,)),
    (_deep, (580, 615, 791)),
    (_float_and_complex, (124,)),
    (_complex, (252,)),
]
_RULES = {number: rule for rule, numbers in _TASKS for number in numbers}

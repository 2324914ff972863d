"""Problems of the countdown game, made from a fixed seed: an expression of given numbers that equals a target."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

TRAIN, HELD_OUT = 4000, 400
"""Numbers of problems; no problem is in both parts."""
NAMES = ("shipped:countdown", "shipped:countdown-held-out")
"""The names that `task.path` and `evaluate.path` know."""
LARGEST = 100
"""The largest number and target."""


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of one of `NAMES`: `prompt`, `numbers` (3 or 4), and `target`, which some expression equals."""
    chosen = _problems()[:TRAIN] if name == NAMES[0] else _problems()[TRAIN:]
    return [{"prompt": _question(*problem), "numbers": list(problem[0]), "target": problem[1]} for problem in chosen]


@cache
def _problems() -> tuple[tuple[tuple[int, ...], int], ...]:
    found: dict[tuple[tuple[int, ...], int], None] = {}
    for numbers, target in _drawn(random.Random(0)):
        found[numbers, target] = None
        if len(found) == TRAIN + HELD_OUT:
            break
    return tuple(found)


def _drawn(noise: random.Random) -> Iterator[tuple[tuple[int, ...], int]]:
    """Draw numbers and combine two of what is left until one value is; it is the target if it is one to reach."""
    while True:
        numbers = tuple(noise.randrange(1, LARGEST) for _ in range(noise.choice((3, 4))))
        left = [Fraction(number) for number in numbers]
        while len(left) > 1:
            a = left.pop(noise.randrange(len(left)))
            b = left.pop(noise.randrange(len(left)))
            sign = noise.choice("+-*/")
            if sign == "/" and not b:
                sign = "+"
            left.append(a + b if sign == "+" else a - b if sign == "-" else a * b if sign == "*" else a / b)
        target = left[0]
        if target.denominator == 1 and 1 <= target <= LARGEST and target not in numbers:
            yield tuple(sorted(numbers)), int(target)


def _question(numbers: tuple[int, ...], target: int) -> str:
    given = ", ".join(map(str, numbers[:-1]))
    return (
        f"Combine the numbers {given} and {numbers[-1]} with +, -, * and / so that the result is {target}. Use each "
        "number exactly once; parentheses are allowed. Think step by step, then end with the expression in a box, such "
        r"as \boxed{(1 + 2) * 3}."
    )

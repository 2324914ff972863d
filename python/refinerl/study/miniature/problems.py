"""Problems of the miniature: a few operations in sequence, and tests that tell right programs from plausible errors."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refinerl.study.miniature.operations import (
    DIFFICULTIES,
    OF_DIFFICULTY,
    OPERATIONS,
    SHAPED,
    Difficulty,
    Operation,
    Shape,
    fill,
)

TESTS = 4
"""Tests of a problem."""
SEED = 1
"""Seed of the shipped problems."""


@dataclass(frozen=True)
class Mix:
    """A distribution over problems."""

    lengths: tuple[float, float, float]
    """Shares of problems with one, two and three operations."""
    difficulties: Mapping[Difficulty, float]
    """Shares of the difficulties among the operations."""


CORPUS = Mix((0.25, 0.40, 0.35), {"easy": 0.45, "medium": 0.30, "hard": 0.25})
"""The problems that the base model was trained on."""
TASK = Mix((0.15, 0.40, 0.45), {"easy": 0.38, "medium": 0.29, "hard": 0.33})
"""The problems that are shipped: two thirds have a hard operation."""


@dataclass(frozen=True)
class Exercise:
    """A problem without tests."""

    steps: tuple[tuple[str, int], ...]
    """(name of the operation, its number), in the order in which they are applied."""
    shape: Shape = "near"
    """Shape of the plausible errors."""

    @property
    def operations(self) -> list[tuple[Operation, int]]:
        """The operations with their numbers, in order."""
        return [(SHAPED[self.shape][name], number) for name, number in self.steps]

    @property
    def question(self) -> str:
        """The text of the problem.

        >>> Exercise((("last", 2), ("distinct", 3), ("square", 4))).question
        'take last 2; sort unique; square'
        """
        return "; ".join(OPERATIONS[name].question(number) for name, number in self.steps)

    @property
    def difficulty(self) -> Difficulty:
        """The difficulty of its hardest operation."""
        return max((OPERATIONS[name].difficulty for name, _ in self.steps), key=DIFFICULTIES.index)

    def solution(self) -> str:
        """Return a right program.

        >>> print(Exercise((("last", 2), ("square", 4))).solution())
        def f(x):
            x = x[-2:]
            x = [v * v for v in x]
            return x
        """
        return program([fill(OPERATIONS[name].right[0], number, "x", "v") for name, number in self.steps], "x")


def program(lines: Sequence[str], values: str) -> str:
    """Return the program that assigns each expression in turn to the list `values`."""
    return "\n".join([f"def f({values}):", *(f"    {values} = {line}" for line in lines), f"    return {values}"])


def draw(rng: random.Random, mix: Mix, shape: Shape = "near") -> Exercise:
    """Draw a problem, whose errors have a shape. No operation occurs twice in it."""
    (length,) = rng.choices((1, 2, 3), mix.lengths)
    names: list[str] = []
    while len(names) < length:
        (difficulty,) = rng.choices(list(mix.difficulties), list(mix.difficulties.values()))
        name = rng.choice(OF_DIFFICULTY[difficulty])
        if name not in names:
            names.append(name)
    return Exercise(tuple((name, rng.randint(2, 4)) for name in names), shape)


Case = tuple[list[int], list[int]]
"""(argument, returned value)"""


def cases(exercise: Exercise, rng: random.Random) -> list[Case] | None:
    """Draw tests for a problem; None if a plausible error would pass them all, or if they are degenerate.

    All but one test change their list, and all but one return elements.
    """
    solve = _function(exercise.solution())
    found: list[Case] = []
    for number in range(40):
        given = [rng.randint(0, 6) for _ in range(rng.randint(4, 7))]
        if number == 0:
            given = sorted(given[:3])
        try:
            expected = solve(list(given))
        except ValueError:  # the maximum of an empty list
            continue
        if all(given != other for other, _ in found):
            found.append((given, expected))
        if len(found) == TESTS:
            break
    changed = sum(expected != given for given, expected in found)
    filled = sum(bool(expected) for _, expected in found)
    if len(found) < TESTS or min(changed, filled) < TESTS - 1:
        return None
    return None if any(_passes(each, found) for each in _with_one_error(exercise)) else found


def _with_one_error(exercise: Exercise) -> list[str]:
    """Return the programs that are right except for one plausible error."""
    right = [fill(operation.right[0], number, "x", "v") for operation, number in exercise.operations]
    return [
        program([*right[:place], fill(wrong, number, "x", "v"), *right[place + 1 :]], "x")
        for place, (operation, number) in enumerate(exercise.operations)
        for wrong in operation.wrong
    ]


def _passes(source: str, tests: Sequence[Case]) -> bool:
    solve = _function(source)
    try:
        results = [solve(list(given)) for given, _ in tests]
    except Exception:  # any error of the program fails the test
        return False
    return results == [expected for _, expected in tests]


def _function(source: str) -> Any:
    """Return the function of a program of this module, which needs no sandbox."""
    space: dict[str, Any] = {}
    exec(compile(source, "<miniature>", "exec"), space)
    return space["f"]


def rows(name: str, count: int, rng: random.Random, taken: set[str], shape: Shape = "near") -> list[dict[str, Any]]:
    """Draw problems whose questions are not in `taken`, to which theirs are added.

    Returns:
        `count` problems in APPS's layout; their ids are `name`-0, `name`-1, …
    """
    found: list[dict[str, Any]] = []
    while len(found) < count:
        exercise = draw(rng, TASK, shape)
        if exercise.question in taken:
            continue
        tests = cases(exercise, rng)
        if tests is None:
            continue
        taken.add(exercise.question)
        found.append(
            {
                "problem_id": f"{name}-{len(found)}",
                "question": exercise.question,
                "solutions": [exercise.solution()],
                "input_output": {
                    "fn_name": "f",
                    "inputs": [[given] for given, _ in tests],
                    "outputs": [expected for _, expected in tests],
                },
                "difficulty": exercise.difficulty,
            }
        )
    return found


def training_and_held_out(
    train: int = 1500, held_out: int = 200, shape: Shape = "near"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw the training problems and the held-out problems, which have no question in common.

    The tests tell right programs from errors of the shape.
    """
    rng, taken = random.Random(SEED), set[str]()
    held = rows("held-out", held_out, rng, taken, shape)
    return rows("train", train, rng, taken, shape), held

"""The texts that the base model learns from: programs with errors, requests to correct one, and minimal corrections."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from refinerl.data.apps import Problem, chat_question, official_prompt
from refinerl.study.miniature.operations import Difficulty, fill
from refinerl.study.miniature.problems import Exercise, program
from refinerl.tasks.templates import PromptTemplate, load_refine_template

TEMPLATE = "refine_miniature"
"""The refiner's template, which recipes name as `refiner.template`."""
ERRORS: Mapping[Difficulty, float] = {"easy": 0.08, "medium": 0.5, "hard": 1.0}
"""Share of the corpus's lines that are wrong."""
NO_ERRORS: Mapping[Difficulty, float] = {"easy": 0.0, "medium": 0.0, "hard": 0.0}
"""The same for right programs."""
TYPED = 0.08
"""Share of the corpus's programs that have typing errors."""
TYPED_ASKED = 0.25
"""The same among the programs to correct."""
RIGHT_ASKED = 0.4
"""Share of the programs to correct that are right, apart from typing errors. Their correction is a copy."""
LISTS, LOOPS = ("x", "a"), ("v", "n")
"""Names of the list and of the loop variable."""


@dataclass(frozen=True)
class Attempt:
    """A program for a problem, some of whose lines may be wrong."""

    exercise: Exercise
    lines: tuple[str, ...]
    right: tuple[bool, ...]
    """For each line, whether it is right."""
    values: str
    """The name of the list."""
    value: str
    """The name of the loop variable."""

    @property
    def source(self) -> str:
        """The program."""
        return program(self.lines, self.values)

    def corrected(self, rng: random.Random, skill: float = 1.0) -> str:
        """Return the program with each wrong line replaced by the first right idiom, in the program's own names.

        With probability 1 − `skill`, a plausible error replaces a wrong line instead, possibly the same one.
        """
        lines = list(self.lines)
        for place, ((operation, number), right) in enumerate(zip(self.exercise.operations, self.right, strict=True)):
            if not right:
                idioms = operation.right[:1] if rng.random() < skill else operation.wrong
                lines[place] = fill(rng.choice(idioms), number, self.values, self.value)
        return program(lines, self.values)


def attempt(exercise: Exercise, rng: random.Random, errors: Mapping[Difficulty, float] = ERRORS) -> Attempt:
    """Write a program for a problem as the corpus does."""
    values, value = rng.choice(LISTS), rng.choice(LOOPS)
    lines, right = [], []
    for operation, number in exercise.operations:
        is_right = rng.random() >= errors[operation.difficulty]
        lines.append(fill(rng.choice(operation.right if is_right else operation.wrong), number, values, value))
        right.append(is_right)
    return Attempt(exercise, tuple(lines), tuple(right), values, value)


def _problem(exercise: Exercise) -> Problem:
    return Problem("", exercise.question, "", "f", (), exercise.difficulty, ())


def request(exercise: Exercise) -> str:
    """Return the prompt of a problem, as the code task writes it with `prompt_format=apps`."""
    return official_prompt(_problem(exercise))


def request_to_correct(exercise: Exercise, source: str) -> str:
    """Return the refiner's prompt, as the code task writes it with `refiner.template=refine_miniature`."""
    (message,) = _template().messages(question=chat_question(_problem(exercise)), response=source)
    return message["content"]


@cache
def _template() -> PromptTemplate:
    return load_refine_template(TEMPLATE)


def mistyped(tokens: Sequence[int], rng: random.Random, alphabet: Sequence[int]) -> list[int]:
    """Return a program's tokens with one or two of them deleted, replaced or inserted."""
    typed = list(tokens)
    for _ in range(rng.choice((1, 1, 2))):
        place, kind = rng.randrange(len(typed)), rng.random()
        if kind < 0.4:
            del typed[place]
        elif kind < 0.8:
            typed[place] = rng.choice(alphabet)
        else:
            typed.insert(place, rng.choice(alphabet))
    return typed

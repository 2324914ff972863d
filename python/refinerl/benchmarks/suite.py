"""What a benchmark is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from refinerl.data.apps import Problem

Oracle = Literal["exact", "close", "same_set", "not_none", "find_zero", "digit_distance", "surface_area"]


@dataclass(frozen=True)
class CallTask:
    """A function to write, judged by what it returns.

    Expected values are not part of it: they are what `reference` returns for the same inputs, computed in the sandbox
    and kept outside of the process that runs the program under test.
    """

    id: str
    prompt: str
    """What a model completes; a program is this with the completion behind it."""
    question: str
    """What a chat model is asked."""
    entry_point: str
    canonical: str
    """A program that passes."""
    base: tuple[list[Any], ...]
    """Arguments of each call."""
    plus: tuple[list[Any], ...] = ()
    """Those of the extended tests; empty where the benchmark has none."""
    reference: str = ""
    """A program whose `called` returns the expected values; empty: `canonical` with `suffix`."""
    suffix: str = ""
    """Put behind every program."""
    called: str = ""
    """The function that is called; empty: `entry_point`."""
    labels: tuple[str, ...] = ()
    """What a report calls each base test; empty: the call of `entry_point`."""
    oracle: Oracle = "exact"
    atol: float = 0.0

    @property
    def function(self) -> str:
        """The function that is called."""
        return self.called or self.entry_point


@dataclass(frozen=True)
class ProblemTask:
    """A problem of APPS, judged by the sandbox's own comparison."""

    problem: Problem
    prompt: str
    question: str

    @property
    def id(self) -> str:
        """The problem's number."""
        return self.problem.id

    @property
    def entry_point(self) -> str | None:
        """The function that the tests call; None: they use standard input."""
        return self.problem.fn_name

    @property
    def canonical(self) -> str:
        """The first human solution; empty where there is none."""
        return next(iter(self.problem.solutions), "")


Task = CallTask | ProblemTask


@dataclass(frozen=True)
class Suite:
    """A benchmark as it was read."""

    name: str
    tasks: tuple[Task, ...]
    files: Mapping[str, str]
    """Name of each file that was read, and the SHA-256 of its text."""
    notes: tuple[str, ...] = ()
    """What a reader of the result should know about the data."""
    family: Literal["humaneval", "mbpp", "apps"] = "humaneval"
    first: int | None = None
    """How many of the tasks are used, from the first; None: all."""
    by_id: Mapping[str, Task] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {task.id: task for task in self.tasks})

    @property
    def used(self) -> tuple[Task, ...]:
        """The tasks that count."""
        return self.tasks[: self.first]

    @property
    def has_plus(self) -> bool:
        """Are there extended tests."""
        return any(isinstance(task, CallTask) and task.plus for task in self.tasks)


@dataclass(frozen=True)
class Sample:
    """One program for one task."""

    task_id: str
    number: int
    """Counts the samples of a task from 0."""
    program: str | None
    """None: there was no room for an answer in the model's context."""
    completion: str | None = None
    """What the model wrote, where one did."""


@dataclass(frozen=True)
class Failure:
    """The first test that a sample failed, in excerpts."""

    part: Literal["base", "plus"]
    test: int
    input: str
    expected: str
    got: str


@dataclass(frozen=True)
class Result:
    """A judged sample."""

    sample: Sample
    base: bool
    plus: bool | None
    """The extended tests alone; None where the benchmark has none."""
    outcome: str
    """`passed`, or how the first failing test ended, in the sandbox's words; `no_room` for a sample without program."""
    failure: Failure | None = None

    @property
    def passed(self) -> bool:
        """All tests that there are."""
        return self.base and self.plus is not False

"""The records of a benchmark: tasks, samples, results."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from refinerl.data.apps import Problem

Oracle = Literal["exact", "close", "same_set", "not_none", "find_zero", "digit_distance", "surface_area"]


@dataclass(frozen=True)
class CallTask:
    """A function to write, judged by what it returns.

    A task does not hold expected values: they are what `reference` returns for the same inputs, computed in the sandbox
    and kept outside of the process that runs the program under test.
    """

    id: str
    prompt: str
    """The text that a model completes; a program is this text followed by the completion."""
    question: str
    """The text that a chat model is asked."""
    entry_point: str
    canonical: str
    """A program that passes."""
    base: tuple[list[Any], ...]
    """Arguments of each call."""
    plus: tuple[list[Any], ...] = ()
    """Arguments of the extended tests; empty if there are none."""
    reference: str = ""
    """A program whose `called` returns the expected values; empty: `canonical` with `suffix`."""
    suffix: str = ""
    """Appended to every program."""
    called: str = ""
    """The function that is called; empty: `entry_point`."""
    labels: tuple[str, ...] = ()
    """Names of the base tests in a report; empty: the call of `entry_point`."""
    oracle: Oracle = "exact"
    atol: float = 0.0

    @property
    def function(self) -> str:
        """The function that is called."""
        return self.called or self.entry_point


@dataclass(frozen=True)
class ProblemTask:
    """A problem of APPS or LiveCodeBench, judged by the sandbox's own comparison."""

    problem: Problem
    prompt: str
    question: str

    @property
    def id(self) -> str:
        """The problem's number."""
        return self.problem.id

    @property
    def entry_point(self) -> str | None:
        """The function that the tests call; None if they use standard input."""
        return self.problem.fn_name

    @property
    def canonical(self) -> str:
        """The first human solution; empty if there is none."""
        return next(iter(self.problem.solutions), "")


Task = CallTask | ProblemTask


@dataclass(frozen=True)
class Suite:
    """A benchmark, as read from its files."""

    name: str
    tasks: tuple[Task, ...]
    files: Mapping[str, str]
    """Name of each file that was read, and the SHA-256 of its text."""
    notes: tuple[str, ...] = ()
    """Remarks on the data for readers of the results."""
    family: Literal["humaneval", "mbpp", "apps", "livecodebench"] = "humaneval"
    first: int | None = None
    """Number of tasks in use, from the first; None: all."""
    by_id: Mapping[str, Task] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {task.id: task for task in self.tasks})

    @property
    def used(self) -> tuple[Task, ...]:
        """The tasks in use."""
        return self.tasks[: self.first]

    def digest(self) -> str | None:
        """Return the SHA-256 of the problems in use; None for benchmarks whose files have known versions."""
        if self.family in ("humaneval", "mbpp"):
            return None
        found = hashlib.sha256()
        for task in self.used:
            assert isinstance(task, ProblemTask)
            problem = task.problem
            tests = [(case.input, case.expected) for case in problem.tests]
            # Version 2 writes equal data as equal bytes; JSON would refuse integers of more than 4,300 digits.
            found.update(marshal.dumps((task.id, task.prompt, task.question, problem.fn_name, tests), 2))
        return found.hexdigest()

    @property
    def has_plus(self) -> bool:
        """True if there are extended tests."""
        return any(isinstance(task, CallTask) and task.plus for task in self.tasks)


@dataclass(frozen=True)
class Sample:
    """A program for a task."""

    task_id: str
    number: int
    """Number of the sample among those of its task, from 0."""
    program: str | None
    """None if the model's context had no room for an answer."""
    completion: str | None = None
    """The model's text, if a model wrote the sample."""


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
    """Verdict of the extended tests alone; None if the benchmark has none."""
    outcome: str
    """`passed`, or the sandbox's outcome of the first failing test; `no_room` for a sample without a program."""
    failure: Failure | None = None

    @property
    def passed(self) -> bool:
        """True if all tests pass, base and extended."""
        return self.base and self.plus is not False

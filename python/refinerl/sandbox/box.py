"""Untrusted programs, judged in parallel, each test in a process of its own; the typed face of the Rust sandbox.

    with Sandbox() as box:
        verdicts = box.judge([Program("print(sum(map(int, input().split())))", tests=[Test("1 2\\n", "3\\n")])])

Programs run in children of warm interpreters that the Rust core starts, times, limits and reaps. Expected answers never
enter them; comparison happens in Rust. docs/sandbox.md names each threat, its mechanism, and what is not covered.
`python -m refinerl.sandbox judge|doctor` are the commands (in `command.py`).
"""

from __future__ import annotations

import importlib.util
import marshal
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, cast

from refinerl._core import SandboxError, TestReport, Zygotes

__all__ = [
    "Limits",
    "Outcome",
    "Program",
    "Protection",
    "Run",
    "Sandbox",
    "SandboxError",
    "Test",
    "TestRun",
    "TestVerdict",
    "Verdict",
    "cores",
]

Compare = Literal["strict", "apps"]
ATOL: Final = 1e-6
_MAX_DEPTH: Final = 200
_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


class Outcome(str, Enum):
    """How a test or a program ended."""

    passed = "passed"
    wrong_answer = "wrong_answer"
    runtime_error = "runtime_error"
    timeout = "timeout"
    memory_limit = "memory_limit"
    output_limit = "output_limit"
    compile_error = "compile_error"
    not_run = "not_run"
    sandbox_error = "sandbox_error"


class _Missing(Enum):
    """The absence of an expected answer, which None is not: a function may return None."""

    missing = "missing"


def _check(name: str, good: bool, rule: str, value: object) -> None:
    if not good:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


class _OrderLimits(NamedTuple):
    """Limits of one test in the core's units."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    output_bytes: int


class _Order(NamedTuple):
    """A program as the core reads it. Programs with equal orders have equal verdicts."""

    source: bytes
    fn_name: str | None
    preamble: bool
    tests: tuple[tuple[bytes, bytes | None], ...]
    """Input and expected answer of each test."""
    atol: float | None
    """Tolerance of a strict comparison; None compares as APPS does."""
    limits: _OrderLimits
    stop_early: bool
    together: bool
    """Run all tests in one child."""


@dataclass(frozen=True)
class Limits:
    """What one test may use: seconds on the clock and of the processor, MiB beyond the warm interpreter, KiB of output.

    The output limit holds for each of standard output, standard error and the returned value.
    """

    wall_seconds: float = 4.0
    cpu_seconds: float = 4.0
    memory_mb: int = 512
    output_kb: int = 1024

    def __post_init__(self) -> None:
        bounds = {"wall_seconds": 86_400, "cpu_seconds": 86_400, "memory_mb": 1 << 24, "output_kb": 1 << 21}
        for name, most in bounds.items():
            value = getattr(self, name)
            kind = "an integer" if name in ("memory_mb", "output_kb") else "a number"
            good = isinstance(value, int if kind == "an integer" else (int, float)) and not isinstance(value, bool)
            _check(name, good and 0 < value <= most, f"{kind} above 0 and at most {most}", value)

    def _order(self) -> _OrderLimits:
        memory, output = self.memory_mb << 20, self.output_kb << 10
        return _OrderLimits(float(self.wall_seconds), float(self.cpu_seconds), memory, output)


@dataclass(frozen=True)
class Test:
    """An input and the expected answer.

    For programs that read standard input both are text (bytes, or a list of lines, are also taken). For call-based
    programs `input` is the list of arguments and `expected` the returned value: None, numbers, text, bytes, and lists,
    tuples, sets and dicts of them. `expected` may be absent for `Sandbox.run`.
    """

    __test__ = False  # not a test case of pytest

    input: Any
    expected: Any = _Missing.missing

    def __post_init__(self) -> None:
        if not isinstance(self.input, (str, bytes, list, tuple)):
            raise ValueError(f"input must be text or a list of arguments, got {type(self.input).__name__}")

    @cached_property
    def _as_text(self) -> tuple[bytes, bytes | None]:
        expected = self.expected
        return _text("input", self.input), None if expected is _Missing.missing else _text("expected", expected)

    @cached_property
    def _as_call(self) -> tuple[bytes, bytes | None]:
        if not isinstance(self.input, (list, tuple)):
            raise ValueError(f"input must be a list of arguments, got {type(self.input).__name__}")
        expected = self.expected
        return _data("input", list(self.input)), None if expected is _Missing.missing else _data("expected", expected)


@dataclass(frozen=True)
class Program:
    """Python source and its tests.

    source: run as a script, or with `fn_name` imported as a module whose function, or `Solution()`'s method, is called.
    compare, atol, limits: None takes the sandbox's (atol: 1e-6). `atol` is the tolerance of `compare="strict"` where
        the expected number is a float: |a − b| ≤ atol·max(1, |b|); 0 is exact.
    stop_early: leave out the tests after the first failure; they are `not_run`, and count as not passed.
    preamble: give call-based programs the usual imports (`List`, `inf`, `deque`, …), as the APPS harness does.
    isolate: "program" calls all tests of a call-based program in one child. Faster by far for thousands of tests, but
        the program can keep state from one test to the next.
    """

    source: str
    tests: Sequence[Test]
    fn_name: str | None = None
    compare: Compare | None = None
    atol: float | None = None
    limits: Limits | None = None
    stop_early: bool = False
    preamble: bool = True
    isolate: Literal["test", "program"] = "test"
    _tests: tuple[tuple[bytes, bytes | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check("source", isinstance(self.source, str), "text", self.source)
        _check("fn_name", self.fn_name is None or isinstance(self.fn_name, str), "a name or None", self.fn_name)
        _check("compare", self.compare in (None, "strict", "apps"), "'strict', 'apps' or None", self.compare)
        _check("limits", self.limits is None or isinstance(self.limits, Limits), "Limits or None", self.limits)
        _check("isolate", self.isolate in ("test", "program"), "'test' or 'program'", self.isolate)
        if self.atol is not None:
            good = isinstance(self.atol, (int, float)) and math.isfinite(self.atol) and self.atol >= 0
            _check("atol", good, "a finite number of at least 0", self.atol)
        if self.isolate == "program" and self.fn_name is None:
            raise ValueError("isolate must be 'test' for a program that reads standard input, got 'program'")
        if self.fn_name is not None:
            _text("fn_name", self.fn_name)
        if not self.tests:
            raise ValueError("tests must be at least one Test, got none")
        wires = []
        for index, test in enumerate(self.tests):
            _check(f"tests[{index}]", isinstance(test, Test), "a Test", test)
            try:
                wires.append(test._as_text if self.fn_name is None else test._as_call)
            except ValueError as error:
                raise ValueError(f"tests[{index}].{error}") from None
        object.__setattr__(self, "_tests", tuple(wires))

    def _order(self, compare: Compare, limits: Limits) -> _Order:
        strict = (self.compare or compare) == "strict"
        return _Order(
            source=self.source.encode("utf-8", "surrogatepass"),
            fn_name=self.fn_name,
            preamble=self.preamble,
            tests=self._tests,
            atol=(ATOL if self.atol is None else float(self.atol)) if strict else None,
            limits=(self.limits or limits)._order(),
            stop_early=self.stop_early,
            together=self.isolate == "program",
        )


@dataclass(frozen=True)
class TestVerdict:
    """One test: its outcome, times, the tail of standard error, and for a wrong answer where the answers differ."""

    __test__ = False

    outcome: Outcome
    wall_seconds: float
    cpu_seconds: float
    stderr: str
    expected: str | None = None
    got: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A program: its outcome (the worst of its tests') and its tests."""

    outcome: Outcome
    tests: tuple[TestVerdict, ...]

    @property
    def pass_rate(self) -> float:
        """Passed tests over all tests, those not run included."""
        return sum(test.outcome is Outcome.passed for test in self.tests) / len(self.tests)


@dataclass(frozen=True)
class TestRun:
    """One test without a verdict (`passed` means that it ended normally): what it printed, and what it returned."""

    __test__ = False

    outcome: Outcome
    wall_seconds: float
    cpu_seconds: float
    stderr: str
    output: str
    value: Any = None


@dataclass(frozen=True)
class Run:
    """A program that was run and not judged."""

    outcome: Outcome
    tests: tuple[TestRun, ...]


@dataclass(frozen=True)
class Protection:
    """One mechanism that keeps programs in: whether it is on and, if not, why not and what that exposes."""

    name: str
    on: bool
    reason: str = ""
    exposed: str = ""


class Sandbox:
    """Warm interpreters in which programs are judged; a context manager.

    workers: how many run at the same time (None: the cores this process may use).
    limits, compare: of programs that bring none of their own.
    require: "full" refuses to start where a protection is off (control groups aside, which an ordinary user seldom
        can make); "best_effort" starts with the substitutes.
    packages: names of installed packages that programs may import beside the standard library, such as numpy; they are
        imported once, before the first test, and lie in reach of programs, read-only.
    isolation: the protections, on and off; worth a line in every log.

    Raises SandboxError where it cannot work at all, and ValueError for a bad argument. May be shared by threads
    (batches take turns), but not with a forked process.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits = Limits(),
        compare: Compare = "strict",
        require: Literal["full", "best_effort"] = "best_effort",
        packages: Sequence[str] = (),
    ) -> None:
        _check("workers", workers is None or (isinstance(workers, int) and workers > 0), "an integer above 0", workers)
        _check("limits", isinstance(limits, Limits), "Limits", limits)
        _check("compare", compare in ("strict", "apps"), "'strict' or 'apps'", compare)
        _check("require", require in ("full", "best_effort"), "'full' or 'best_effort'", require)
        self.limits, self.compare = limits, compare
        places = [(name, _place(index, name)) for index, name in enumerate(packages)]
        self._zygotes = Zygotes(
            python=sys.executable, workers=workers or cores(), full=require == "full", packages=places
        )
        rows = self._zygotes.isolation()
        self.isolation = tuple(Protection(row.name, row.on, row.reason, row.exposed) for row in rows)

    def judge(self, programs: Sequence[Program]) -> list[Verdict]:
        """A verdict for each program, in order. Never raises for what a program contains.

        Raises ValueError for a test without an expected answer, SandboxError if the sandbox itself fails.
        """
        for number, program in enumerate(programs):
            for index, (_, expected) in enumerate(program._tests):
                if expected is None:
                    raise ValueError(f"programs[{number}].tests[{index}].expected must be given to judge, got nothing")
        return [_verdict(reports) for reports in self._run(programs, keep=False)]

    def run(self, programs: Sequence[Program]) -> list[Run]:
        """What each program prints or returns, in order; expected answers are not needed and not looked at."""
        bare = [tuple((given, None) for given, _ in program._tests) for program in programs]
        return [
            Run(_worst(reports), tuple(map(_test_run, reports)))
            for reports in self._run(programs, keep=True, tests=bare)
        ]

    def close(self) -> None:
        """End all processes of the sandbox. Harmless when repeated."""
        self._zygotes.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, programs: Sequence[Program], keep: bool, tests: Sequence[Any] | None = None
    ) -> list[list[TestReport]]:
        """The core's reports on each program; programs that cannot differ run once."""
        orders: dict[_Order, int] = {}
        places = []
        for index, program in enumerate(programs):
            order = program._order(self.compare, self.limits)
            if tests is not None:
                order = order._replace(tests=tests[index])
            places.append(orders.setdefault(order, len(orders)))
        reports = self._zygotes.run(list(orders), keep=keep)
        return [reports[place] for place in places]


def _verdict(reports: Sequence[TestReport]) -> Verdict:
    tests = (
        TestVerdict(
            outcome=Outcome(report.outcome),
            wall_seconds=report.wall_seconds,
            cpu_seconds=report.cpu_seconds,
            stderr=report.stderr,
            expected=report.expected,
            got=report.got,
        )
        for report in reports
    )
    return Verdict(_worst(reports), tuple(tests))


def _test_run(report: TestReport) -> TestRun:
    return TestRun(
        outcome=Outcome(report.outcome),
        wall_seconds=report.wall_seconds,
        cpu_seconds=report.cpu_seconds,
        stderr=report.stderr,
        output=report.stdout.decode("utf-8", "replace"),
        # The core's own encoding of plain data.
        value=None if report.value is None else marshal.loads(report.value),
    )


_SEVERITY: Final = {
    outcome: rank
    for rank, outcomes in enumerate(
        (
            (Outcome.sandbox_error,),
            (Outcome.compile_error,),
            (Outcome.runtime_error, Outcome.timeout, Outcome.memory_limit, Outcome.output_limit),
            (Outcome.wrong_answer,),
            (Outcome.not_run,),
            (Outcome.passed,),
        )
    )
    for outcome in outcomes
}


def _worst(reports: Sequence[TestReport]) -> Outcome:
    """Our own fault voids a verdict; then compile_error, the first other failure, wrong_answer, passed."""
    return min((Outcome(report.outcome) for report in reports), key=_SEVERITY.__getitem__)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _place(index: int, name: object) -> str:
    """The folder of an installed package, or the file of a module."""
    top_level = isinstance(name, str) and name.isidentifier()
    spec = importlib.util.find_spec(name) if isinstance(name, str) and top_level else None
    _check(f"packages[{index}]", spec is not None and spec.has_location, "the name of an installed package", name)
    assert spec is not None
    assert spec.origin is not None
    return os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin


def _text(name: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
        value = "\n".join(cast("Sequence[str]", value))
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text or a list of lines, got {type(value).__name__}")
    return value.encode("utf-8", "surrogatepass")


def _data(name: str, value: object) -> bytes:
    try:
        _check_plain(value, 0)
    except ValueError as error:
        raise ValueError(f"{name} must be plain data, got {error}") from None
    return marshal.dumps(cast(Any, value), 2)


def _check_plain(value: object, depth: int) -> None:
    """Only exact built-in types: `marshal` would take a buffer for bytes, and a subclass may lie about itself."""
    kind = type(value)
    if kind in _ATOMS:
        return
    if kind is dict:
        items: list[object] = [part for pair in cast("dict[object, object]", value).items() for part in pair]
    elif kind in (list, tuple, set, frozenset):
        items = list(cast("Sequence[object]", value))
    else:
        raise ValueError(f"a {kind.__name__}")
    if depth > _MAX_DEPTH:
        raise ValueError(f"data nested deeper than {_MAX_DEPTH}")
    if not _ATOMS.issuperset(map(type, items)):
        for item in items:
            _check_plain(item, depth + 1)

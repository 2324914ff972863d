r"""The Python interface of the Rust sandbox: untrusted programs, judged in parallel, each test in its own process.

>>> with Sandbox(workers=1) as box:
...     program = Program("print(sum(map(int, input().split())))", tests=[Test("1 2\n", "3\n"), Test("0 0\n", "1\n")])
...     (verdict,) = box.judge([program])
>>> verdict.outcome.value, verdict.pass_rate
('wrong_answer', 0.5)

Programs run in children of warm interpreters that the Rust core starts, times, limits and reaps. Expected answers never
enter these processes; the comparison is done in Rust. docs/sandbox.md names each threat, the mechanism against it, and
what is not covered. `python -m refinerl.sandbox judge|doctor` are the commands (`command.py`).
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

from refinerl._core import SandboxError as SandboxError
from refinerl._core import TestReport, Zygotes

Compare = Literal["strict", "apps"]
ATOL: Final = 1e-6
_MAX_DEPTH: Final = 200
_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


class Outcome(str, Enum):
    """The end of a test or a program."""

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
    """The absence of an expected answer; None would be an answer, since a function may return it."""

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
    """Limits of one test: seconds of wall time and processor time, MiB beyond the warm interpreter, KiB of output.

    The output limit applies to standard output, standard error and the returned value, each by itself.
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

    For programs that read standard input both are text; bytes and lists of lines are accepted too. For call-based
    programs `input` is the list of arguments and `expected` the returned value: None, numbers, text, bytes, and lists,
    tuples, sets and dicts of them. `expected` may be left out for `Sandbox.run`.
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

    Args:
        source: run as a script; or, with `fn_name`, imported as a module whose function, or method of `Solution()`, is
            called.
        compare: rule of comparison; None takes the sandbox's.
        limits: of each test; None takes the sandbox's.
        atol: tolerance of `compare="strict"` where the expected number is a float: |a − b| ≤ atol·max(1, |b|); 0 is
            exact, None is 1e-6.
        stop_early: skip the tests after the first failure; they are `not_run` and count as not passed.
        preamble: give call-based programs the usual imports (`List`, `inf`, `deque`, …), as the APPS harness does.
        isolate: "program" calls all tests of a call-based program in one child, which is far faster for thousands of
            tests, but lets the program keep state from one test to the next.

    Raises:
        ValueError: a value cannot be used; the message names it.
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
    """The verdict on a test: outcome, times, the tail of standard error, and where a wrong answer differs."""

    __test__ = False

    outcome: Outcome
    wall_seconds: float
    cpu_seconds: float
    stderr: str
    expected: str | None = None
    got: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a program: its outcome, which is the worst of its tests', and those of its tests."""

    outcome: Outcome
    tests: tuple[TestVerdict, ...]

    @property
    def pass_rate(self) -> float:
        """Share of the tests that passed; tests that did not run count as not passed."""
        return sum(test.outcome is Outcome.passed for test in self.tests) / len(self.tests)


@dataclass(frozen=True)
class TestRun:
    """A test without a verdict: what it printed and what it returned; `passed` means that it ended normally."""

    __test__ = False

    outcome: Outcome
    wall_seconds: float
    cpu_seconds: float
    stderr: str
    output: str
    value: Any = None


@dataclass(frozen=True)
class Run:
    """A program that was run but not judged."""

    outcome: Outcome
    tests: tuple[TestRun, ...]


@dataclass(frozen=True)
class Protection:
    """A mechanism that contains programs: whether it is on and, if not, why and what that exposes."""

    name: str
    on: bool
    reason: str = ""
    exposed: str = ""


class Sandbox:
    """Warm interpreters that judge programs; a context manager.

    Threads may share a sandbox (their batches take turns), a forked process may not use it.

    Args:
        workers: number of programs that run at the same time; None: the cores that this process may use.
        limits: for programs that have none of their own.
        compare: for programs that have none of their own.
        require: "full" refuses to start if a protection is off, apart from control groups, which an ordinary user can
            seldom create; "best_effort" starts with substitutes.
        packages: names of installed packages that programs may import beside the standard library, such as numpy. They
            are imported once, before the first test, and programs can read them.

    Attributes:
        isolation: the protections, on and off; worth a line in every log.

    Raises:
        SandboxError: the sandbox cannot work at all on this machine.
        ValueError: an argument cannot be used.
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
        """Judge programs; return their verdicts in order. The content of a program never raises an error.

        Raises:
            ValueError: a test has no expected answer.
            SandboxError: the sandbox itself failed.
        """
        for number, program in enumerate(programs):
            for index, (_, expected) in enumerate(program._tests):
                if expected is None:
                    raise ValueError(f"programs[{number}].tests[{index}].expected must be given to judge, got nothing")
        return [_verdict(reports) for reports in self._run(programs, keep=False)]

    def run(self, programs: Sequence[Program]) -> list[Run]:
        """Run programs; return what each prints or returns, in order. Expected answers are not needed.

        Raises:
            SandboxError: the sandbox itself failed.
        """
        bare = [tuple((given, None) for given, _ in program._tests) for program in programs]
        return [
            Run(_worst(reports), tuple(map(_test_run, reports)))
            for reports in self._run(programs, keep=True, tests=bare)
        ]

    def close(self) -> None:
        """End all processes of the sandbox; calling it again does nothing.

        A call of `judge` or `run` in another thread raises SandboxError within moments.
        """
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
        """Return the core's reports on each program; programs that cannot differ run once."""
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
    """Choose a program's outcome: a fault of the sandbox, then compile_error, other failures, wrong_answer, passed."""
    return min((Outcome(report.outcome) for report in reports), key=_SEVERITY.__getitem__)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _place(index: int, name: object) -> str:
    """Find the folder of an installed package, or the file of a module."""
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
    """Accept only exact built-in types: `marshal` takes any buffer for bytes, and a subclass may misreport itself."""
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

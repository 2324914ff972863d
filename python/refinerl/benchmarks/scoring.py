"""Scoring of samples: the sandbox runs all calls of a sample in one child, and results are compared outside of it."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from refinerl.benchmarks.livecodebench import IMPORTS
from refinerl.benchmarks.oracle import first_mismatch
from refinerl.benchmarks.suite import CallTask, Failure, ProblemTask, Result, Sample, Suite
from refinerl.errors import UserError
from refinerl.sandbox import Limits, Outcome, Program, Run, Sandbox, SandboxError, Test, TestRun, Verdict
from refinerl.tasks.code import sandbox_tests

BATCH = 32
"""Number of samples judged at once: few enough to show progress, enough to keep all workers busy."""
REFERENCE_SECONDS = 60.0
MINIMUM_SECONDS = 1.0
REFERENCE_FACTOR = 4.0
"""evalplus's rule: a call may take four times as long as the reference solution's slowest call, but at least 1 s."""
WALL_FACTOR = 4.0
"""Limit of wall time over that of processor time, so that no program fails because the machine is busy."""
MINIMUM_KB, REFERENCE_KB = 256, 16 << 10
"""An answer may be twice as large as the largest expected one, but at least the first; a reference's, the second."""
BUDGET = 256 << 20
"""Most bytes of encoded answers in memory at once."""
GROUP = 8
"""Number of reference solutions that run at once."""
REMEMBERED = 1 << 20
"""Largest size of a task's expected answers that are kept, since training evaluates many times."""
PROBLEM_SECONDS = {"apps": 4.0, "livecodebench": 6.0}
"""Processor time of each test of a problem; LiveCodeBench's own judge allows 6 s."""
EXCERPT = 400

Part = Literal["base", "plus"]
T = TypeVar("T")


class _Expected(NamedTuple):
    """The values that the reference solution returned."""

    base: tuple[Any, ...]
    plus: tuple[Any, ...]
    seconds: float
    """Processor time of the canonical solution's slowest call."""
    size: int
    """Bytes of all answers, encoded."""
    largest: int
    """Bytes of the largest answer."""


class _Pair(NamedTuple):
    sample: Sample
    task: CallTask
    expected: _Expected


class Scorer:
    """A judge of one suite's samples.

    Args:
        seconds: processor time for each test; None: evalplus's rule for functions (4 × the reference, at least 1 s),
            4 s for problems of APPS, and 6 s for those of LiveCodeBench.
        memory_mb: memory for each test, in MiB.
        compare: comparison of outputs, for APPS and LiveCodeBench.
    """

    def __init__(
        self,
        suite: Suite,
        box: Sandbox,
        *,
        seconds: float | None = None,
        memory_mb: int = 4096,
        compare: Literal["strict", "apps"] = "strict",
    ) -> None:
        self.suite = suite
        self._box = box
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._compare: Literal["strict", "apps"] = compare
        self._expected: dict[str, _Expected] = {}

    def score(self, samples: Sequence[Sample], progress: Callable[[int], None] | None = None) -> list[Result]:
        """Judge samples; return their results in order. `progress` is called with the number of samples that are done.

        Raises:
            SandboxError: the sandbox itself failed.
            UserError: a reference solution fails, or a test cannot be used.
        """
        judge = self._calls if self.suite.family in ("humaneval", "mbpp") else self._problems
        results: list[Result] = []
        for batch in _batches(samples, BATCH):
            judged = iter(judge([sample for sample in batch if sample.program is not None]))
            for sample in batch:
                plus = False if self.suite.has_plus else None
                results.append(Result(sample, False, plus, "no_room") if sample.program is None else next(judged))
            if progress is not None:
                progress(len(batch))
        return results

    # --- functions ------------------------------------------------------------------------------

    def _calls(self, samples: Sequence[Sample]) -> list[Result]:
        """Judge samples, as many at once as the sizes of their answers allow."""
        pairs = [(sample, self._call_task(sample)) for sample in samples]
        expected = self._prepared({task.id: task for _, task in pairs})
        results: list[Result] = []
        batch: list[_Pair] = []
        size = 0
        for sample, task in pairs:
            if batch and size + expected[task.id].size > BUDGET:
                results += self._judged(batch)
                batch, size = [], 0
            batch.append(_Pair(sample, task, expected[task.id]))
            size += expected[task.id].size
        return results + (self._judged(batch) if batch else [])

    def _judged(self, pairs: Sequence[_Pair]) -> list[Result]:
        runs = self._run([self._program(pair, pair.task.base + pair.task.plus) for pair in pairs])
        # A child ends at the first call that fails, so that an endless program is waited for once and not a thousand
        # times. If that call was a base test, the extended tests, which have their own verdict, get their own child.
        bases = [run.tests[: len(pair.task.base)] for pair, run in zip(pairs, runs, strict=True)]
        again = [i for i, pair in enumerate(pairs) if pair.task.plus and _stop(bases[i]) is not None]
        rest = self._run([self._program(pairs[i], pairs[i].task.plus) for i in again])
        second = {i: run.tests for i, run in zip(again, rest, strict=True)}
        return [
            self._result(pair, bases[i], second.get(i, runs[i].tests[len(bases[i]) :])) for i, pair in enumerate(pairs)
        ]

    def _program(self, pair: _Pair, inputs: Sequence[list[Any]]) -> Program:
        cpu = self._seconds or max(MINIMUM_SECONDS, REFERENCE_FACTOR * pair.expected.seconds)
        output_kb = max(MINIMUM_KB, 2 * pair.expected.largest >> 10)
        return self._isolated(f"{pair.sample.program}{pair.task.suffix}", pair.task.function, inputs, cpu, output_kb)

    def _isolated(self, source: str, function: str, inputs: Sequence[list[Any]], cpu: float, output_kb: int) -> Program:
        return Program(
            source,
            [Test(arguments) for arguments in inputs],
            fn_name=function,
            limits=Limits(WALL_FACTOR * cpu, cpu, self._memory_mb, output_kb),
            stop_early=True,
            preamble=False,
            isolate="program",
        )

    def _prepared(self, tasks: dict[str, CallTask]) -> dict[str, _Expected]:
        """Compute what the tests of these tasks expect; small values are kept."""
        found = {name: self._expected[name] for name in tasks if name in self._expected}
        new = [task for name, task in tasks.items() if name not in found]
        for group in _batches(new, GROUP):
            canonical = [self._reference(task, f"{task.canonical}{task.suffix}") for task in group]
            reference = [self._reference(task, task.reference) for task in group if task.reference]
            runs = self._run(canonical + reference)
            others = iter(runs[len(group) :])
            for task, timed in zip(group, runs[: len(group)], strict=True):
                found[task.id] = _expect(task, timed, next(others) if task.reference else timed)
        self._expected |= {name: values for name, values in found.items() if values.size <= REMEMBERED}
        return found

    def _reference(self, task: CallTask, source: str) -> Program:
        return self._isolated(source, task.function, task.base + task.plus, REFERENCE_SECONDS, REFERENCE_KB)

    def _result(self, pair: _Pair, base: Sequence[TestRun], more: Sequence[TestRun]) -> Result:
        sample, task, expected = pair
        outcome, failure = _compared(task, "base", task.base, base, expected.base)
        passed = failure is None
        if not task.plus:
            # Some tasks of an extended benchmark have no extended tests: the base tests decide.
            return Result(sample, passed, passed if self.suite.has_plus else None, outcome, failure)
        plus_outcome, plus_failure = _compared(task, "plus", task.plus, more, expected.plus)
        if passed:
            outcome, failure = plus_outcome, plus_failure
        return Result(sample, passed, plus_failure is None, outcome, failure)

    def _call_task(self, sample: Sample) -> CallTask:
        task = self.suite.by_id[sample.task_id]
        assert isinstance(task, CallTask)
        return task

    def _run(self, programs: Sequence[Program]) -> list[Run]:
        runs = self._box.run(programs) if programs else []
        for run in runs:
            if run.outcome is Outcome.sandbox_error:
                raise SandboxError(f"the sandbox failed: {run.tests[0].stderr}")
        return runs

    # --- problems of APPS and LiveCodeBench -----------------------------------------------------------------------

    def _problems(self, samples: Sequence[Sample]) -> list[Result]:
        programs, results = [], []
        seconds = self._seconds or PROBLEM_SECONDS[self.suite.family]
        limits = Limits(WALL_FACTOR * seconds, seconds, self._memory_mb, 1 << 14)
        for sample in samples:
            task = self.suite.by_id[sample.task_id]
            assert isinstance(task, ProblemTask)
            name = task.problem.fn_name
            isolate: Literal["test", "program"] = "test" if name is None else "program"
            tests = sandbox_tests(task.problem)
            source = sample.program or ""
            if self.suite.family == "livecodebench" and name is None and "from __future__" not in source:
                source = f"{IMPORTS}{source}"
            programs.append(
                Program(
                    source,
                    tests,
                    fn_name=name,
                    compare=self._compare,
                    limits=limits,
                    stop_early=True,
                    isolate=isolate,
                )
            )
        for sample, program, verdict in zip(samples, programs, self._box.judge(programs), strict=True):
            results.append(_verdict(sample, program, verdict))
        return results


def _expect(task: CallTask, timed: Run, run: Run) -> _Expected:
    stop = _stop(run.tests)
    if stop is not None:
        end = run.tests[stop]
        raise UserError(f"the reference solution of {task.id} fails: {end.outcome.value} {_last_lines(end.stderr)}")
    values = tuple(test.value for test in run.tests)
    sizes = [len(marshal.dumps(value, 2)) for value in values]
    seconds = max(test.cpu_seconds for test in timed.tests)
    return _Expected(values[: len(task.base)], values[len(task.base) :], seconds, sum(sizes), max(sizes))


def _compared(
    task: CallTask, part: Part, inputs: Sequence[list[Any]], runs: Sequence[TestRun], expected: Sequence[Any]
) -> tuple[str, Failure | None]:
    """Return the outcome and the first failure of one part of the tests."""
    stop = _stop(runs)
    done = len(runs) if stop is None else stop
    values = [run.value for run in runs[:done]]
    wrong = first_mismatch(task.oracle, task.atol, inputs[:done], values, expected[:done])
    if wrong is not None:
        got = _shown(values[wrong])
        return "wrong_answer", _failure(task, part, wrong, inputs, expected, got)
    if stop is None:
        return "passed", None
    end = next((run for run in runs[stop:] if run.outcome not in (Outcome.passed, Outcome.not_run)), runs[stop])
    return end.outcome.value, _failure(task, part, stop, inputs, expected, _last_lines(end.stderr))


def _failure(
    task: CallTask, part: Part, index: int, inputs: Sequence[list[Any]], expected: Sequence[Any], got: str
) -> Failure:
    call = task.labels[index] if task.labels else f"{task.entry_point}({', '.join(map(_shown, inputs[index]))})"
    return Failure(part, index, _excerpt(call), _shown(expected[index]), got)


def _stop(runs: Sequence[TestRun]) -> int | None:
    """Find the index of the first call that gave no value."""
    return next((i for i, run in enumerate(runs) if run.outcome is not Outcome.passed), None)


def _verdict(sample: Sample, program: Program, verdict: Verdict) -> Result:
    if verdict.outcome is Outcome.sandbox_error:
        raise SandboxError(f"the sandbox failed: {verdict.tests[0].stderr}")
    if verdict.outcome is Outcome.passed:
        return Result(sample, True, None, "passed")
    bad = next(t for t in enumerate(verdict.tests) if t[1].outcome not in (Outcome.passed, Outcome.not_run))
    index, test = bad
    given = program.tests[index]
    failure = Failure(
        "base",
        index,
        _excerpt(given.input) if isinstance(given.input, str) else _shown(given.input),
        _excerpt(given.expected) if isinstance(given.expected, str) else _shown(given.expected),
        _excerpt(test.got) if test.got is not None else _last_lines(test.stderr),
    )
    return Result(sample, False, None, test.outcome.value, failure)


def _shown(value: Any) -> str:
    """Show an excerpt of a value; Python does not print integers of more than 4,300 digits."""
    try:
        return _excerpt(repr(value))
    except ValueError:
        return f"{type(value).__name__} with an integer of more than 4,300 digits"


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT // 2]} … {text[-EXCERPT // 2 :]}"


def _last_lines(text: str) -> str:
    return _excerpt("\n".join(text.strip().splitlines()[-3:]))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

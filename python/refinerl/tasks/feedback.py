"""Feedback on a program for the refiner: the verdict, the first failing visible test, the end of its error log.

`feedback` is made only from the program's source, the visible tests and counts. No byte of a hidden test may leak into
it: neither of the expected answer nor of the input, which could also reveal the answer. `failure` may show a hidden
test, and is for people only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from refinerl.data.apps import Problem
from refinerl.errors import UserError
from refinerl.sandbox import Outcome, TestVerdict, Verdict

SHOWN_CHARACTERS = 400
"""Largest number of characters of an input or an answer; longer texts are cut."""
ERROR_LINES = 6
ERROR_CHARACTERS = 600

_VERDICTS = {
    "passed": "all tests pass",
    "wrong_answer": "wrong answer",
    "runtime_error": "run-time error",
    "timeout": "time limit exceeded",
    "memory_limit": "memory limit exceeded",
    "output_limit": "output limit exceeded",
    "compile_error": "the program does not compile",
}


def count_visible(problem: Problem, visible_tests: int | float) -> int:
    """Return the number of tests of a problem that may be shown.

    Visible tests are the first ones, which in most data sets are the question's examples. An integer `visible_tests` is
    a number of tests; a float is a share of them, rounded down.

    Raises:
        UserError: the problem has fewer tests.
    """
    total = len(problem.tests)
    if isinstance(visible_tests, float):
        return math.floor(visible_tests * total + 1e-9)
    if visible_tests > total:
        raise UserError(
            f"task.visible_tests must be at most the number of tests of each problem, got {visible_tests} where "
            f"problem {problem.id} has {total}: choose task.visible_tests={total}, or a share of the tests such as "
            "task.visible_tests=0.5"
        )
    return visible_tests


def first_failing(verdict: Verdict, visible: int) -> int | None:
    """Return the index of the first of the `visible` tests that the program fails; None if it passes them all."""
    failing = (i for i, test in enumerate(verdict.tests[:visible]) if test.outcome is not Outcome.passed)
    return next(failing, None)


def feedback(problem: Problem, source: str, verdict: Verdict, visible: int) -> str:
    """Return the text for `$feedback`; it may show the first `visible` tests of the problem."""
    if verdict.outcome is Outcome.compile_error:
        return "\n".join([f"Verdict: {_VERDICTS['compile_error']}.", *_titled("Error", syntax_error(source))])
    passed = sum(test.outcome is Outcome.passed for test in verdict.tests)
    said = _VERDICTS[verdict.outcome.value]
    if verdict.outcome is not Outcome.passed:
        said += f", {passed} of {len(verdict.tests)} tests pass"
    lines = [f"Verdict: {said}."]
    index = first_failing(verdict, visible)
    if index is not None:
        lines += _failed(problem, index, verdict.tests[index])
    elif visible and verdict.outcome is not Outcome.passed:
        lines.append("The tests that may be shown pass; others do not.")
    return "\n".join(lines)


def failure(problem: Problem, source: str, verdict: Verdict) -> str:
    """Return an excerpt of the first failing test, hidden or not; empty if all pass.

    It is for people who read a run. No model may see it, because it shows hidden tests.
    """
    if verdict.outcome is Outcome.compile_error:
        return syntax_error(source)
    index = first_failing(verdict, len(verdict.tests))
    if index is None:
        return ""
    return "\n".join([f"Test {index + 1} of {len(verdict.tests)}.", *_failed(problem, index, verdict.tests[index])[1:]])


def syntax_error(source: str) -> str:
    """Return Python's message for a source that does not compile, with its line. No code and no test is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<response>", "exec", dont_inherit=True)
    except SyntaxError as error:
        where = "" if error.lineno is None else f"line {error.lineno}: "
        text = (error.text or "").strip()
        return _cut(f"{where}{text}\n{type(error).__name__}: {error.msg}" if text else f"{where}{error.msg}")
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return _cut(f"{type(error).__name__}: {error}")
    return ""  # the verdict came from another version of Python


def _failed(problem: Problem, index: int, test: TestVerdict) -> list[str]:
    case = problem.tests[index]
    if problem.fn_name is None:
        expected = _text(case.expected)
        lines = ["A test that fails:", *_titled("Input", _text(case.input))]
        title, got_title = "Expected output", "Output of the program"
    else:
        wrapped = all(isinstance(other.expected, list) and len(other.expected) == 1 for other in problem.tests)
        expected = _cut(repr(case.expected[0] if wrapped else case.expected))
        arguments = ", ".join(map(repr, case.input))
        lines = ["A test that fails:", *_titled("Call", _cut(f"{problem.fn_name}({arguments})"))]
        title, got_title = "Expected result", "Result of the program"
    lines += _titled(title, expected)
    if test.outcome is Outcome.wrong_answer:
        got = test.got or ""
        lines += _titled(got_title, got.removeprefix("line 1: ") if "\n" not in expected else got)
    elif test.outcome is Outcome.runtime_error:
        lines += _titled("Error, its last lines", _tail(test.stderr))
    else:
        lines.append(f"The program does not end well there: {_VERDICTS.get(test.outcome.value, test.outcome.value)}.")
    return lines


def _titled(title: str, text: str) -> list[str]:
    if not text:
        return [f"{title}: nothing"] if title != "Error" else []
    return [f"{title}:", text] if "\n" in text else [f"{title}: {text}"]


def _text(value: Any) -> str:
    """Format standard input or output as text, without the last line break."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = "\n".join(map(str, value))
    return _cut(str(value).rstrip("\n"))


def _tail(stderr: str) -> str:
    lines = stderr.rstrip().splitlines()[-ERROR_LINES:]
    text = "\n".join(lines)
    return text if len(text) <= ERROR_CHARACTERS else "…" + text[-ERROR_CHARACTERS:]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"

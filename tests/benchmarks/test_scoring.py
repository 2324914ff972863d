"""Scoring of calls: sizes, limits and references, which the command's tests do not cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from refinerl.benchmarks import scoring
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import CallTask, Result, Sample, Suite
from refinerl.errors import UserError
from refinerl.sandbox import Sandbox

TASK = CallTask("T/0", "", "", "f", "def f(n): return n * n", base=([2], [3]), plus=([4],), oracle="close")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(2) as box:
        yield box


def judge(box: Sandbox, task: CallTask, *programs: str) -> list[Result]:
    scorer = Scorer(Suite("small", (task,), {}), box)
    return scorer.score([Sample(task.id, n, program) for n, program in enumerate(programs)])


def test_answers_with_more_digits_than_python_prints(box):
    task = replace(TASK, canonical="def f(n): return 10 ** (5000 * n)")
    right, wrong = judge(box, task, task.canonical, "def f(n): return 10 ** (5000 * n) + 1")
    assert right.passed
    assert wrong.failure is not None
    assert (wrong.failure.input, wrong.failure.got) == ("f(2)", "int with an integer of more than 4,300 digits")


def test_answers_far_larger_than_the_expected_ones_end_the_program(box):
    (result,) = judge(box, TASK, "def f(n): return 'x' * 10_000_000")
    assert result.outcome == "output_limit"


def test_large_answers_are_judged_a_few_at_a_time_and_not_remembered(box, monkeypatch):
    monkeypatch.setattr(scoring, "BUDGET", 1 << 20)
    task = replace(TASK, canonical="def f(n): return 'x' * n * 300_000")
    scorer = Scorer(Suite("large", (task,), {}), box)
    programs = [task.canonical, "def f(n): return 'x'", task.canonical]
    results = scorer.score([Sample("T/0", n, program) for n, program in enumerate(programs)])
    assert [result.passed for result in results] == [True, False, True]
    assert scorer._expected == {}


def test_expected_answers_are_computed_once(box):
    scorer = Scorer(Suite("small", (TASK,), {}), box)
    first = scorer._prepared({"T/0": TASK})["T/0"]
    assert (first.base, first.plus) == ((4, 9), (16,))
    assert scorer._prepared({"T/0": TASK})["T/0"] is first


@pytest.mark.slow
def test_a_slow_reference_gives_its_programs_four_times_its_time(box):
    """The reference takes about 0.6 s for each call; a program that takes twice as long is within the limit."""
    spend = (
        "import time\ndef f(n):\n    end = time.process_time() + {}\n"
        "    while time.process_time() < end: pass\n    return n"
    )
    task = replace(TASK, canonical=spend.format(0.6), base=([1],), plus=([2],))
    slow, too_slow = judge(box, task, spend.format(1.2), spend.format(3.5))
    assert slow.passed
    assert too_slow.outcome == "timeout"


def test_a_reference_that_fails_is_the_datas_fault(box):
    with pytest.raises(UserError, match=r"(?s)the reference solution of T/0 fails: runtime_error .*ZeroDivision"):
        judge(box, replace(TASK, canonical="def f(n): return 1 / 0"), "def f(n): return n")


def test_a_task_without_extended_tests_in_an_extended_benchmark(box):
    """Mbpp/793 has no extended tests, so its base tests decide."""
    lone = replace(TASK, id="T/1", plus=())
    scorer = Scorer(Suite("mixed", (TASK, lone), {}), box)
    good, bad = scorer.score([Sample("T/1", 0, TASK.canonical), Sample("T/1", 1, "def f(n): return 0")])
    assert (good.base, good.plus) == (True, True)
    assert (bad.base, bad.plus) == (False, False)


def test_calls_of_a_sample_share_a_process_and_samples_do_not(box):
    counting = "seen = []\ndef f(n):\n    seen.append(n)\n    return len(seen)"
    task = replace(TASK, canonical=counting)
    again = judge(box, task, counting, counting + "\n")
    assert [result.passed for result in again] == [True, True]

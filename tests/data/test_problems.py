from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from refinerl.data import SHIPPED
from refinerl.data.apps import Problem, load_problems
from refinerl.sandbox import Outcome, Program, Sandbox, Test

PROBLEMS = load_problems(Path(str(resources.files("refinerl.data") / "problems.jsonl"))).problems


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2) as box:
        yield box


def program(problem: Problem, source: str) -> Program:
    return Program(source, tests=[Test(*case) for case in problem.tests], fn_name=problem.fn_name)


def test_the_set_is_what_its_readme_says() -> None:
    assert len(PROBLEMS) == 56
    assert sum(problem.fn_name is None for problem in PROBLEMS) == 34
    assert [problem.difficulty for problem in PROBLEMS] == ["trivial"] * 30 + ["easy"] * 26
    for problem in PROBLEMS:
        assert len(problem.question.split()) < 60
        assert len(problem.solutions) == 2
        assert len(problem.tests) >= 5
        assert len({repr(case.input) for case in problem.tests}) == len(problem.tests)
        assert bool(problem.starter_code) == (problem.fn_name is not None or problem.difficulty == "trivial")


def test_every_third_problem_is_held_out() -> None:
    rows = Path(str(resources.files("refinerl.data") / "problems.jsonl")).read_text("utf-8").splitlines()
    assert SHIPPED["problems-held-out"].read_text("utf-8").splitlines() == rows[2::3]
    assert SHIPPED["problems-train"].read_text("utf-8").splitlines() == [r for i, r in enumerate(rows, 1) if i % 3]


@pytest.mark.slow
def test_every_reference_solution_passes_every_test(box: Sandbox) -> None:
    jobs = [(problem, source) for problem in PROBLEMS for source in problem.solutions]
    verdicts = box.judge([program(*job) for job in jobs])
    failed = [(job[0].id, verdict) for job, verdict in zip(jobs, verdicts, strict=True) if verdict.pass_rate < 1]
    assert failed == []


def test_doing_nothing_passes_no_problem(box: Sandbox) -> None:
    """No problem is passed by an empty program or by one that prints a constant."""
    lazy = [problem.starter_code + ("    return None\n" if problem.fn_name else "pass\n") for problem in PROBLEMS]
    verdicts = box.judge([program(*job) for job in zip(PROBLEMS, lazy, strict=True)])
    assert {verdict.outcome for verdict in verdicts} == {Outcome.wrong_answer}


def test_echoing_the_input_solves_no_problem(box: Sandbox) -> None:
    reading = [problem for problem in PROBLEMS if problem.fn_name is None]
    verdicts = box.judge([program(problem, "import sys\nprint(sys.stdin.read())") for problem in reading])
    assert all(verdict.pass_rate < 1 for verdict in verdicts)

"""The problems: reproducible, disjoint, solved by their solutions in the sandbox, and missed by plausible errors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from refinerl.data import MINIATURE, MINIATURE_FAR
from refinerl.data.apps import load_problems
from refinerl.sandbox import Outcome, Program, Sandbox
from refinerl.study.miniature import problems
from refinerl.study.miniature.operations import OPERATIONS, Shape
from refinerl.study.miniature.problems import CORPUS, Exercise, draw
from refinerl.tasks.code import CodeTask, sandbox_tests


def test_problems_are_drawn_from_the_mix():
    rng = random.Random(0)
    drawn = [draw(rng, CORPUS) for _ in range(4000)]
    lengths = [len(exercise.steps) for exercise in drawn]
    for length, share in zip((1, 2, 3), CORPUS.lengths, strict=True):
        assert abs(lengths.count(length) / 4000 - share) < 0.03
    single = [OPERATIONS[exercise.steps[0][0]].difficulty for exercise in drawn if len(exercise.steps) == 1]
    for difficulty, share in CORPUS.difficulties.items():
        assert abs(single.count(difficulty) / len(single) - share) < 0.06
    assert all(len({name for name, _ in exercise.steps}) == len(exercise.steps) for exercise in drawn)


def test_no_plausible_error_passes_the_tests():
    exercise = Exercise((("last", 2), ("square", 3)))
    tests = problems.cases(exercise, random.Random(0))
    assert tests is not None
    assert all([v * v for v in given[-2:]] == expected for given, expected in tests)
    assert not any(all([v * v for v in given[:-2]] == expected for given, expected in tests) for _ in [0])
    # Sorting twice is what sorting is: an error in the first line changes nothing.
    assert problems.cases(Exercise((("down", 2), ("sort", 2))), random.Random(0)) is None


def test_a_far_error_is_told_from_the_right_program():
    """Of the same lists, two that have one maximum cannot tell `drop maxima` from leaving out the largest."""
    tests = problems.cases(Exercise((("lesser", 2), ("sort", 2)), "far"), random.Random(0))
    assert tests is not None
    assert any(sorted(given)[:-1] != expected for given, expected in tests)


SHIPPED: list[tuple[Path, Shape]] = [(MINIATURE, "near"), (MINIATURE_FAR, "far")]


@pytest.mark.parametrize(("folder", "shape"), SHIPPED)
def test_the_shipped_problems_are_those_of_the_seed(folder: Path, shape: Shape):
    train, held_out = problems.training_and_held_out(40, 200, shape)
    assert [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()] == held_out
    assert [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()[:40]] == train


@pytest.mark.parametrize(("folder", "shape"), SHIPPED)
def test_training_and_held_out_problems_are_disjoint(folder: Path, shape: Shape):
    train = load_problems(folder / "train.jsonl").problems
    held_out = load_problems(folder / "held_out.jsonl").problems
    assert (len(train), len(held_out)) == (1500, 200)
    assert len({problem.question for problem in (*train, *held_out)}) == 1700


def test_the_sandbox_accepts_the_solutions():
    held_out = load_problems(MINIATURE / "held_out.jsonl").problems
    assert all(len(problem.tests) == 4 for problem in held_out)
    with Sandbox(workers=1) as box:
        verdicts = box.judge(
            [
                Program(problem.solutions[0], tests=sandbox_tests(problem), fn_name="f", isolate="program")
                for problem in held_out
            ]
        )
    assert {verdict.outcome for verdict in verdicts} == {Outcome.passed}


def test_the_code_task_reads_them_by_name():
    assert len(CodeTask.Options(name="code", embedded="miniature").read().problems) == 1500
    easy = CodeTask.Options(name="code", embedded="miniature", difficulty="easy", max_tests=2).read().problems
    assert {(problem.difficulty, len(problem.tests)) for problem in easy} == {("easy", 2)}

"""Verdicts: when a difference between two ways of correcting is called one."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from refinerl.audition.judgement import compare, sign_test, standard_error


def judged(mine: list[bool], theirs: list[bool], groups: list[int] | None = None) -> str:
    return compare("mine", mine, "fresh answers", theirs, groups or list(range(len(mine))), price=": too dear")


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ([True] * 27 + [False] * 3, [False] * 30, "beats fresh answers (improvement ratio +90.0 ± 5.6 points)"),
        ([False] * 30, [True] * 27 + [False] * 3, "does worse than fresh answers: too dear (improvement ratio -90.0"),
        ([True, False] * 15, [False, True] * 15, "no clear difference from fresh answers"),
        ([False] * 30, [False] * 30, "no answer was improved, nor by fresh answers"),
        ([True] * 5 + [False] * 59, [False] * 64, "no clear difference"),  # 5 of 5: a coin does that, too
        ([True] * 7 + [False] * 57, [False] * 64, "beats fresh answers"),
    ],
)
def test_verdicts(mine: list[bool], theirs: list[bool], words: str) -> None:
    assert words in judged(mine, theirs)


@pytest.mark.parametrize("count", [1, 2, 8, 19])
def test_few_answers_are_no_verdict_however_clear(count: int) -> None:
    said = judged([True] * count, [False] * count)
    assert f"{count} answers are too few for a verdict" in said
    assert "beats" not in said
    assert "beats" not in judged([True] * (count - 1) + [False], [False] * count)


def test_answers_to_the_same_question_are_not_taken_as_independent() -> None:
    """Forty answers to five questions, of which a way solves two whole: that is two of five, not sixteen of forty."""
    mine, theirs = [True] * 16 + [False] * 24, [False] * 40
    assert "beats fresh answers" in judged(mine, theirs)
    assert "no clear difference" in judged(mine, theirs, [i // 8 for i in range(40)])
    assert "no clear difference" in judged([True] * 40, theirs, [0] * 40)  # one question tells nothing of others


def test_the_error_over_groups_of_one_is_the_usual_one_and_grows_with_likeness() -> None:
    noise = random.Random(1)
    values = [noise.gauss(0, 1) for _ in range(60)]
    usual = statistics.stdev(values) / math.sqrt(60)
    assert standard_error(values, list(range(60))) == pytest.approx(usual)
    repeated = [value for value in values for _ in range(4)]
    assert standard_error(repeated, [i // 4 for i in range(240)]) == pytest.approx(usual)
    assert math.isnan(standard_error([1.0, 0.0], [3, 3]))


def test_wrong_verdicts_are_rare() -> None:
    """Two equal ways, 64 answers in 16 groups whose difficulty differs: about one in twenty is called different."""
    noise, wrong = random.Random(2), 0
    groups = [i // 4 for i in range(64)]
    for _ in range(400):
        ease = [noise.random() for _ in range(16)]
        mine, theirs = ([noise.random() < ease[g] for g in groups] for _ in range(2))
        wrong += "no clear difference" not in judged(mine, theirs, groups)
    assert wrong <= 400 * 0.08


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(8, 2) == sign_test(2, 8) == pytest.approx(0.109375)
    assert sign_test(10, 0) == pytest.approx(2 / 1024)

"""The operations: their idioms are Python, right ones agree, wrong ones differ."""

from __future__ import annotations

import random

import pytest

from refinerl.study.miniature.operations import DIFFICULTIES, OF_DIFFICULTY, OPERATIONS, fill

RNG = random.Random(0)
LISTS = [[RNG.randint(0, 6) for _ in range(length)] for length in (4, 5, 6, 7, 7)]


def results(idiom: str, number: int) -> list[object]:
    """The values of an idiom on all lists; None where it raises."""
    found: list[object] = []
    for values in LISTS:
        try:
            found.append(eval(fill(idiom, number, "x", "v"), {"x": list(values)}))
        except Exception:
            found.append(None)
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_right_idioms_agree_and_each_error_differs(name: str):
    operation = OPERATIONS[name]
    for number in (2, 3, 4):
        expected = results(operation.right[0], number)
        assert all(isinstance(values, list) for values in expected)
        assert all(results(idiom, number) == expected for idiom in operation.right)
        assert all(results(idiom, number) != expected for idiom in operation.wrong)


def test_the_words_tell_operations_apart():
    questions = [operation.question(3) for operation in OPERATIONS.values()]
    assert len(set(questions)) == len(questions) == 44
    assert [len(OF_DIFFICULTY[difficulty]) for difficulty in DIFFICULTIES] == [10, 10, 24]

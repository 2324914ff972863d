"""evalplus's rules by hand; tests/benchmarks/test_agreement.py compares verdicts if evalplus is installed."""

import math
from typing import Any

import pytest

from refinerl.benchmarks.oracle import first_mismatch


def right(oracle: Any, got: Any, wanted: Any, atol: float = 0, arguments: tuple[Any, ...] = ()) -> bool:
    return first_mismatch(oracle, atol, [arguments], [got], [wanted]) is None


@pytest.mark.parametrize(
    ("got", "wanted", "expected"),
    [
        (1, 1, True),
        (1, 2, False),
        (True, 1, True),
        ((1, 2), [1, 2], False),
        ([1, 2], [1, 2], True),
        ([1], [1, 2], False),
        (0.3, 0.1 + 0.2, True),
        (0.3001, 0.3, False),
        (1, 1.0, True),
        (2, 1.9999999, False),  # types differ where == fails
        ([0.1 + 0.2], [0.3], True),
        ((0.1 + 0.2,), [0.3], False),
        ([0.3, 1], [0.3, 1], True),
        ([0.1 + 0.2, 1], [0.3, 1], False),  # not all are floats: no tolerance
        ({"a": 0.1 + 0.2}, {"a": 0.3}, False),
        (math.nan, math.nan, False),
        (math.inf, math.inf, True),
        ("x", "x", True),
        ("x", 1.5, False),
        (None, None, True),
        ([10**400], [10.0], False),
        ([[1.0], [2.0, 3.0]], [1.0, 2.0], False),
    ],
)
def test_close(got, wanted, expected):
    assert right("close", got, wanted) is expected


def test_exact_is_pythons_equality():
    assert not right("exact", 0.1 + 0.2, 0.3)
    assert right("exact", 2, 2.0)
    assert not right("exact", (1, 2), [1, 2])


def test_an_absolute_tolerance_asked_for():
    assert right("close", 2.00005, 2.0, atol=1e-4)
    assert right("close", [1, 2], [1, 2], atol=1e-4)
    assert not right("close", 2.001, 2.0, atol=1e-4)
    assert right("close", 10**9 + 1, 10**9, atol=1e-4)  # 1e-7 of it


def test_the_tolerance_stays_once_a_float_was_expected():
    """After the first float the following ints are compared with a tolerance too, as in evalplus."""
    big = 10**9
    assert first_mismatch("close", 0, [(), ()], [big + 1, 0.5], [big, 0.5]) == 0
    assert first_mismatch("close", 0, [(), ()], [0.5, big + 1], [0.5, big]) is None


def test_the_first_mismatch_is_named():
    assert first_mismatch("close", 0, [(), (), ()], [1, 5, 6], [1, 2, 3]) == 1


def test_sets():
    assert right("same_set", (3, 1, 1), [1, 3])
    assert not right("same_set", (3, 1), [1])
    assert not right("same_set", 5, [5])
    assert not right("same_set", [[1]], [[1]])  # items that no set can hold


def test_presence():
    assert right("not_none", True, True)
    assert not right("not_none", False, True)


def test_roots():
    """Either root of (x − 2)(x + 1) is right, whichever the reference found."""
    assert right("find_zero", -1.0, 2.0, 1e-4, ([-2, -1, 1],))
    assert not right("find_zero", 1.0, 2.0, 1e-4, ([-2, -1, 1],))
    assert not right("find_zero", None, 2.0, 1e-4, ([-2, -1, 1],))
    assert not right("find_zero", 1e200, 2.0, 1e-4, ([-2, -1, 1, 5],))


def test_two_readings_of_a_question():
    assert right("digit_distance", 1 + 2, 0, 0, (1, 22))  # 01 and 22 give 2 + 1
    assert right("digit_distance", 7, 7, 0, (1, 22))
    assert not right("digit_distance", 4, 7, 0, (1, 22))
    edge, height = 3, 4
    slant = math.sqrt(1.5**2 + 16)
    assert right("surface_area", round(9 + 6 * slant), 33, 0, (edge, height))
    assert right("surface_area", 33, 33, 0, (edge, height))
    assert not right("surface_area", "x", 33, 0, (edge, height))

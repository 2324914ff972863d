"""Fisher's F: the limits of printed tables, and those of Student's t, whose square is F."""

from __future__ import annotations

import math

import pytest

from refinerl.study.fisher import above, limit


@pytest.mark.parametrize(
    ("probability", "upper", "lower", "f"),
    [
        (0.05, 1, 1, 161.45),
        (0.05, 1, 4, 7.709),
        (0.05, 2, 4, 6.944),
        (0.01, 2, 4, 18.00),
        (0.001, 2, 4, 61.25),
        (0.01, 3, 5, 12.06),
        (0.05, 4, 4, 6.388),
        (0.01, 5, 2, 99.30),
        (0.05, 10, 20, 2.348),
    ],
)
def test_the_values_of_printed_tables(probability: float, upper: int, lower: int, f: float) -> None:
    assert limit(probability, upper, lower) == pytest.approx(f, rel=5e-4)
    assert above(limit(probability, upper, lower), upper, lower) == pytest.approx(probability, abs=1e-10)


@pytest.mark.parametrize(
    ("probability", "degrees", "t"),
    [
        (0.95, 1, 12.706),
        (0.99, 2, 9.925),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.99, 5, 4.032),
        (0.999, 6, 5.959),
        (0.99, 13, 3.012),
        (0.999, 30, 3.646),
        (0.95, 120, 1.980),
    ],
)
def test_printed_tables_of_students_t(probability: float, degrees: int, t: float) -> None:
    assert math.sqrt(limit(1 - probability, 1, degrees)) == pytest.approx(t, abs=6e-4)


def test_nothing_is_inside_a_distance_of_zero() -> None:
    assert above(0.0, 1, 1) == above(0.0, 1, 4) == 1.0

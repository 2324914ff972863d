"""Fisher's F: the limits of printed tables, and Student's t as its case of one degree."""

from __future__ import annotations

import pytest

from refinerl.study import student
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


@pytest.mark.parametrize("degrees", [1, 2, 5, 40, 999])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 4.0, 30.0])
def test_the_square_of_students_t(t: float, degrees: int) -> None:
    assert above(t * t, 1, degrees) == pytest.approx(1 - student.inside(t, degrees), abs=1e-12)

"""Student's t: the quantiles of printed tables."""

from __future__ import annotations

import pytest

from refinerl.study.student import inside, quantile


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
def test_the_values_of_printed_tables(probability: float, degrees: int, t: float) -> None:
    assert quantile(probability, degrees) == pytest.approx(t, abs=6e-4)
    assert inside(quantile(probability, degrees), degrees) == pytest.approx(probability, abs=1e-10)


def test_nothing_is_inside_a_distance_of_zero() -> None:
    assert inside(0.0, 1) == inside(0.0, 4) == 0.0

"""Correlations: worked out by hand, and as often by chance as counting says."""

from __future__ import annotations

import itertools
import math

import pytest

from refinerl.study.correlation import chance, spearman


def test_the_probability_is_counted_over_all_orders() -> None:
    xs, ys = [0.8, 0.6, 0.6, 0.1, 0.3], [0.5, 0.2, 0.6, 0.0, 0.1]
    seen = spearman(xs, ys)
    assert seen == pytest.approx(0.8208, abs=1e-4)  # 8 / √95
    others = [spearman(xs, order) for order in itertools.permutations(ys)]
    share = sum(abs(other) >= abs(seen) - 1e-9 for other in others if other is not None) / math.factorial(5)
    assert chance(xs, ys) == pytest.approx(share)
    assert chance(list(range(9)), list(range(9))) is None
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None

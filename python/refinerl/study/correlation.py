"""Correlation of a few points: linear, of ranks, and how often chance has one as large."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

MOST = 8
"""Most points whose orders are counted: 8! of them."""


def ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal values share the mean of theirs.

    >>> ranks([0.3, 0.1, 0.3])
    [2.5, 1.0, 2.5]
    """
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the linear correlation; None for less than three points, or if a side has one value only."""
    if len(xs) < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    return statistics.correlation(xs, ys)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the correlation of the ranks; None as in `pearson`."""
    return pearson(ranks(xs), ranks(ys))


def chance(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the share of all orders of `ys` whose rank correlation with `xs` is at least as far from 0 as this one.

    >>> chance([1, 2, 3, 4], [1, 2, 3, 4]) == 2 / 24
    True
    """
    seen = spearman(xs, ys)
    if seen is None or len(xs) > MOST:
        return None
    first, second = ranks(xs), ranks(ys)
    middle = statistics.fmean(first)
    # The order changes neither mean nor spread, so that the sum of products decides.
    far = abs(_product(first, second, middle)) - 1e-9
    orders = itertools.permutations(second)
    return sum(abs(_product(first, order, middle)) >= far for order in orders) / math.factorial(len(xs))


def _product(first: Sequence[float], second: Sequence[float], middle: float) -> float:
    return math.fsum((a - middle) * (b - middle) for a, b in zip(first, second, strict=True))

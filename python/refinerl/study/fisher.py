"""Fisher's F distribution: how far a variance strays from another where both samples have the same."""

from __future__ import annotations

import math
from functools import cache


def above(f: float, upper: int, lower: int) -> float:
    """Return the probability that F > f, for f ≥ 0 and whole degrees of freedom of numerator and denominator.

    It is the regularized incomplete beta function of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.6.2.

    >>> round(above(6.94, 2, 4), 4)
    0.05
    """
    return _beta(lower / (lower + upper * f), lower / 2, upper / 2)


@cache
def limit(probability: float, upper: int, lower: int) -> float:
    """Return the f that F exceeds with this probability.

    >>> round(limit(0.05, 2, 4), 2)
    6.94
    """
    low, high = 0.0, 1.0
    while above(high, upper, lower) > probability:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle, upper, lower) > probability else (low, middle)
    return high


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function by its continued fraction (26.5.8), where that converges fast."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # The fraction 1 / (1 + d1 / (1 + d2 / …)) by the convergents' numerators and denominators, scaled to stay finite.
    before, now = (0.0, 1.0), (1.0, 1.0)
    last, value = 0.0, 1.0
    step = 0
    while abs(value - last) > 1e-15 * abs(value):
        step += 1
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        numerator, denominator = now[0] + d * before[0], now[1] + d * before[1]
        before, now = (now[0] / denominator, now[1] / denominator), (numerator / denominator, 1.0)
        last, value = value, now[0]
    return math.exp(logarithm) / a * value

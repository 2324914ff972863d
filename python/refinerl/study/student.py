"""Student's t distribution: how far a value strays from a mean that few values gave."""

from __future__ import annotations

import math
from functools import cache


def inside(t: float, degrees: int) -> float:
    """Return the probability that |T| < t, for t ≥ 0 and a whole number of degrees of freedom.

    The finite sums are those of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    >>> round(inside(1.0, 1), 4)
    0.5
    """
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share


@cache
def quantile(probability: float, degrees: int) -> float:
    """Return the t that |T| stays below with this probability.

    >>> round(quantile(0.95, 4), 3)
    2.776
    """
    low, high = 0.0, 1.0
    while inside(high, degrees) < probability:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle, degrees) < probability else (low, middle)
    return high

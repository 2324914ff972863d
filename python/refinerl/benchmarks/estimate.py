"""Estimates over problems, with intervals: pass@k by the unbiased estimator (Chen et al., 2021), and means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95 % interval; all three are NaN without a value."""

    value: float
    low: float
    high: float


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Compute 1 − C(n−c, k) / C(n, k), the chance that one of k samples passes, drawn without replacement from n.
    Args:
        samples: n, the number of samples of one problem.
        passed: c, how many of them pass.
        k: number of samples that are drawn.

    Raises:
        ValueError: not 0 ≤ passed ≤ samples, or not 1 ≤ k ≤ samples.

    >>> pass_at_k(samples=4, passed=1, k=2)
    0.5
    >>> round(pass_at_k(samples=10, passed=3, k=5), 3)
    0.917
    """
    if not 0 <= passed <= samples:
        raise ValueError(f"passed must be 0 to samples = {samples}, got {passed}")
    if not 1 <= k <= samples:
        raise ValueError(f"k must be 1 to samples = {samples}, got {k}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def wilson(mean: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Compute Wilson's score interval of a mean of `count` independent values in [0, 1].

    Its assumptions hold for values that are 0 or 1 (k = 1, greedy). For values between, the interval is conservative:
    no variable in [0, 1] has a larger variance around its mean than one that is 0 or 1.

    Raises:
        ValueError: the count is below 1, or the mean is not in [0, 1].

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if not 0 <= mean <= 1:
        raise ValueError(f"mean must be 0 to 1, got {mean}")
    scale = 1 + z * z / count
    centre = (mean + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    # At means of 0 and 1 the two terms are equal up to rounding.
    return (0.0 if mean == 0 else max(0.0, centre - half)), (1.0 if mean == 1 else min(1.0, centre + half))


def estimate(counts: Sequence[tuple[int, int]], k: int) -> Estimate:
    """Estimate pass@k over problems, with Wilson's interval.

    Args:
        counts: (samples, passed) of each problem.
        k: number of samples that are drawn.

    Raises:
        ValueError: there are no problems, or one has fewer than k samples.

    >>> estimate([(1, 1), (1, 0), (1, 1), (1, 1)], k=1).value
    0.75
    """
    if not counts:
        raise ValueError("counts must be at least one problem's, got none")
    mean = math.fsum(pass_at_k(samples, passed, k) for samples, passed in counts) / len(counts)
    mean = min(1.0, max(0.0, mean))
    return Estimate(mean, *wilson(mean, len(counts)))


_HEAVY = {1: 12.706205, 2: 4.302653}
"""Quantiles for which the expansion is off by more than 0.05."""


def quantile(freedom: int) -> float:
    """Approximate the 97.5 % quantile of Student's t distribution.

    >>> [round(quantile(n), 2) for n in (5, 15, 60)]
    [2.57, 2.13, 2.0]
    """
    if freedom in _HEAVY:
        return _HEAVY[freedom]
    z = Z95
    first = (z**3 + z) / 4 / freedom
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
    return z + first + second + third


def share(values: Sequence[float]) -> Estimate:
    """Estimate a mean of values in [0, 1], one for each problem, with Wilson's interval.

    >>> share([1.0, 0.0, 1.0, 0.5]).value
    0.625
    """
    if not values:
        return Estimate(math.nan, math.nan, math.nan)
    mean = min(1.0, max(0.0, math.fsum(values) / len(values)))
    return Estimate(mean, *wilson(mean, len(values)))


def average(values: Sequence[float]) -> Estimate:
    """Estimate a mean of values without bounds, one for each problem, with Student's interval: NaN for one value.

    >>> found = average([1.0, 2.0, 3.0])
    >>> found.value, round(found.low, 1), round(found.high, 1)
    (2.0, -0.5, 4.5)
    """
    if not values:
        return Estimate(math.nan, math.nan, math.nan)
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, math.nan, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = quantile(count - 1) * math.sqrt(variance / count)
    return Estimate(mean, mean - half, mean + half)

"""Statistics of an audition: standard errors over groups, and verdicts on pairs of correction methods.

Answers to the same question are correlated, so a standard error for independent answers would be too small. Errors are
therefore clustered by question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from refinerl.benchmarks.estimate import quantile

FEWEST = 20
"""Smallest number of answers for a verdict."""
LEVEL = 0.05
"""Two-sided significance level of a verdict."""


def standard_error(values: Sequence[float], groups: Sequence[int]) -> float:
    """Compute the standard error of a mean, clustered by group; NaN for fewer than two groups.

    >>> standard_error([1.0, 0.0, 1.0, 0.0], [0, 1, 2, 3]) == (1 / 12) ** 0.5
    True
    >>> standard_error([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1])  # two values that say one thing are one value
    0.5
    """
    count, each = len(values), set(groups)
    if len(each) < 2:
        return math.nan
    mean = sum(values) / count
    sums = dict.fromkeys(each, 0.0)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value - mean
    return math.sqrt(len(each) / (len(each) - 1) * sum(s * s for s in sums.values())) / count


def sign_test(better: int, worse: int) -> float:
    """Compute the two-sided p-value of the sign test: the probability of counts at least as uneven by chance.

    >>> sign_test(5, 0), sign_test(6, 0)
    (0.0625, 0.03125)
    """
    trials = better + worse
    tail = sum(math.comb(trials, k) for k in range(min(better, worse) + 1)) / 2.0**trials
    return min(1.0, 2 * tail)


def compare(
    name: str, improved: Sequence[bool], rival: str, theirs: Sequence[bool], groups: Sequence[int], *, price: str = ""
) -> str:
    """Return the verdict on whether a method improves more answers than a rival, paired by answer.

    A verdict requires enough answers, a difference outside Student's 95 % interval over groups, and a significant sign
    test, because the interval alone is too narrow for a handful of improvements with little spread.

    Args:
        name: the name of the method.
        improved: for each answer, True if the method improved it.
        rival: the name of the rival.
        theirs: for each answer, True if the rival improved it.
        groups: for each answer, the number of its question.
        price: text that is added if the rival is better.
    """
    pairs = [float(a) - float(b) for a, b in zip(improved, theirs, strict=True)]
    if not any(improved) and not any(theirs):
        return f"{name}: no answer was improved, nor by {rival}; try an easier task or a larger --n"
    mean, error, count = sum(pairs) / len(pairs), standard_error(pairs, groups), len(set(groups))
    size = f"(improvement ratio {100 * mean:+.1f} ± {100 * error:.1f} points)" if not math.isnan(error) else ""
    if len(pairs) < FEWEST:
        return f"{name}: {len(pairs)} answers are too few for a verdict; try --n 64 {size}".rstrip()
    better, worse = pairs.count(1.0), pairs.count(-1.0)
    clear = count > 1 and abs(mean) > quantile(count - 1) * error and sign_test(better, worse) < LEVEL
    if not clear:
        return f"{name}: no clear difference from {rival}; try a larger --n {size}".rstrip()
    words = f"beats {rival}" if mean > 0 else f"does worse than {rival}{price}"
    return f"{name}: {words} {size}"

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinerl.benchmarks.estimate import average, estimate, pass_at_k, quantile, share, wilson


def by_enumeration(samples: int, passed: int, k: int) -> float:
    """The closed form is the share of k-subsets that hold a sample that passes."""
    subsets = list(itertools.combinations(range(samples), k))
    return sum(any(i < passed for i in subset) for subset in subsets) / len(subsets)


def human_evals_estimator(samples: int, passed: int, k: int) -> float:
    """The closed form equals the product of openai/human-eval and evalplus: 1 − Π (1 − k / i) for i = n−c+1 … n."""
    if samples - passed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def test_by_enumeration():
    for samples in range(1, 8):
        for passed in range(samples + 1):
            for k in range(1, samples + 1):
                assert math.isclose(pass_at_k(samples, passed, k), by_enumeration(samples, passed, k), abs_tol=1e-15)


def test_by_hand():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)  # of six pairs one holds no pass
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1


def test_human_evals_estimator_on_random_counts():
    dice = random.Random(0)
    for _ in range(2000):
        samples = dice.randint(1, 400)
        passed, k = dice.randint(0, samples), dice.randint(1, samples)
        ours, theirs = pass_at_k(samples, passed, k), human_evals_estimator(samples, passed, k)
        assert math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6)])
def test_impossible_counts(samples, passed, k):
    with pytest.raises(ValueError, match="must be"):
        pass_at_k(samples, passed, k)


def test_wilsons_interval_by_hand():
    """The interval of 8 of 10 is (0.490, 0.943), as in Wilson's formula; none leaves [0, 1] or is empty."""
    low, high = wilson(0.8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert wilson(0, 20)[0] == 0
    assert wilson(0, 20)[1] == pytest.approx(0.16113, abs=1e-4)
    assert wilson(1, 20) == pytest.approx((1 - 0.16113, 1), abs=1e-4)


@given(st.floats(0, 1), st.integers(1, 1000))
def test_the_interval_holds_its_mean(mean, count):
    low, high = wilson(mean, count)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert low < high


def test_the_interval_covers_in_about_95_of_100_experiments():
    dice = np.random.default_rng(0)
    for truth in (0.1, 0.5, 0.9):
        found = [wilson(dice.binomial(164, truth) / 164, 164) for _ in range(2000)]
        assert 0.93 < np.mean([low <= truth <= high for low, high in found]) < 0.97


def test_the_mean_is_over_problems():
    found = estimate([(1, 1), (4, 1), (2, 0)], 1)
    assert found.value == pytest.approx((1 + 0.25 + 0) / 3)
    assert (found.low, found.high) == wilson(found.value, 3)


def test_problems_with_too_few_samples():
    with pytest.raises(ValueError, match="k must be 1 to samples = 1, got 2"):
        estimate([(2, 1), (1, 1)], 2)
    with pytest.raises(ValueError, match="counts must be"):
        estimate([], 1)


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (15, 2.131), (30, 2.042), (1000, 1.962)],
)
def test_students_quantile(freedom: int, value: float) -> None:
    assert quantile(freedom) == pytest.approx(value, rel=0.01)


def test_a_mean_without_bounds_has_students_interval():
    """By hand: a deviation of 2, √4 values, and 3.182 for three degrees of freedom."""
    found = average([1.0, 3.0, 3.0, 5.0])
    deviation = math.sqrt(8 / 3)
    assert (found.value, found.high - found.value) == (3.0, pytest.approx(3.182 * deviation / 2, rel=0.01))
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_the_interval_of_a_mean_covers_it():
    """In about 95 of 100 draws, few values included; and Wilson's of a share at least as often."""
    noise = random.Random(3)
    for count in (2, 3, 5, 50):
        means = [average([noise.gauss(1.0, 2.0) for _ in range(count)]) for _ in range(1000)]
        assert 0.93 < sum(m.low <= 1.0 <= m.high for m in means) / 1000 < 0.98, count
    shares = [share([noise.random() for _ in range(20)]) for _ in range(500)]
    assert sum(s.low <= 0.5 <= s.high for s in shares) / 500 > 0.95


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert (average([2.0]).value, math.isnan(average([2.0]).low)) == (2.0, True)
    assert all(math.isnan(x) for e in (average([]), share([])) for x in (e.value, e.low, e.high))
    assert share([1.0]).low > 0.2

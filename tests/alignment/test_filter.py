"""`filter_refinements`: which ỹ teach, and which rows merge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinerl.alignment import face as alignment
from refinerl.alignment import filter_refinements
from refinerl.alignment import naive as alignment_naive


@pytest.fixture(params=["native", "naive"])
def either_twin(request, monkeypatch):
    if request.param == "naive":  # as where the extension was not built
        monkeypatch.setattr(alignment, "_native", None)


REWARDS = [-0.3, -0.3, -0.3, 1.0, float("nan"), -0.3, -0.3, -0.3]
REFINED_REWARDS = [1.0, 0.5, -0.3, 1.0, 1.0, None, 1.0, 1.0]
KEYS = ["a", "a", "a", "a", "a", "a", "b", "a"]
REFINED = [[1, 2], [1, 2], [1, 2], [3], [3], [3], [1, 2], []]


@pytest.mark.parametrize(
    ("accept", "representative", "weight", "counts"),
    [
        ("better", [0, 0, -1, -1, -1, -1, 6, -1], [2, 0, 0, 0, 0, 0, 1, 0], (3, 1, 2, 2, 0, 1)),
        ("perfect", [0, -1, -1, -1, -1, -1, 6, -1], [1, 0, 0, 0, 0, 0, 1, 0], (2, 1, 2, 2, 1, 0)),
        ("all", [0, 0, 0, 3, -1, -1, 6, -1], [3, 0, 0, 1, 0, 0, 1, 0], (5, 1, 2, 0, 0, 2)),
    ],
)
@pytest.mark.usefixtures("either_twin")
def test_the_filter_accepts_merges_and_counts(accept, representative, weight, counts):
    filtered = filter_refinements(REWARDS, REFINED_REWARDS, KEYS, REFINED, accept=accept, max_reward=1.0)
    assert filtered.representative.tolist() == representative
    assert filtered.weight.tolist() == weight
    assert filtered.accepted.tolist() == [row >= 0 for row in representative]
    names = ("accepted", "empty", "masked", "not_better", "not_perfect", "merged")
    assert filtered.counts == dict(zip(names, counts, strict=True))


@given(st.data(), st.sampled_from(["better", "perfect", "all"]))
@settings(max_examples=150, deadline=None)
def test_the_filter_equals_its_naive_twin(data, accept):
    n = data.draw(st.integers(0, 20))
    values = st.lists(st.sampled_from([-1.0, -0.3, 0.5, 1.0, float("nan")]), min_size=n, max_size=n)
    rewards, refined_rewards = data.draw(values), data.draw(values)
    keys = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    tokens = data.draw(st.lists(st.lists(st.integers(0, 1), max_size=3), min_size=n, max_size=n))
    refined = [np.array(ids, np.int32 if sum(ids) % 2 else np.int64) for ids in tokens]
    filtered = filter_refinements(rewards, refined_rewards, keys, refined, accept=accept, max_reward=1.0)
    _, representative, weight = alignment_naive.filter_refinements(
        rewards=np.array(rewards),
        refined_rewards=np.array(refined_rewards),
        prompts=np.array(keys, np.int64),
        refined=refined,
        accept=accept,
        max_reward=1.0,
    )
    np.testing.assert_array_equal(filtered.representative, representative, strict=True)
    np.testing.assert_array_equal(filtered.weight, weight, strict=True)
    counts = dict(filtered.counts)
    assert counts.pop("merged") == filtered.accepted.sum() - (weight > 0).sum()
    assert sum(counts.values()) == n
    assert weight.sum() == counts["accepted"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accept": "best"}, "accept must be one of better, perfect, all, got best"),
        ({"accept": "perfect"}, "max_reward must be a number where accept is perfect, got None"),
        ({"rewards": [1.0, 2.0]}, "must be equally many, got 2, 1, 1 and 1"),
        ({"rewards": None}, "rewards must be one-dimensional"),
        ({"keys": None}, "keys must be a sequence, got None"),
        ({"refined": None}, "refined must be a sequence, got None"),
        ({"rewards": ["high"]}, "rewards must be numbers, NaN or None"),
        ({"rewards": [[1.0]]}, "rewards must be one-dimensional"),
        ({"refined": [[1.5]]}, r"refined\[0\] must be token ids from 0 .* got 1.5"),
        ({"refined": [[-1]]}, r"refined\[0\] must be token ids from 0"),
    ],
)
@pytest.mark.usefixtures("either_twin")
def test_the_filter_refuses_what_does_not_fit(changes, message):
    arguments = {"rewards": [1.0], "refined_rewards": [1.0], "keys": ["a"], "refined": [[1]]} | changes
    with pytest.raises(ValueError, match=message):
        filter_refinements(**arguments)

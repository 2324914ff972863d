"""DAPO's selection and group advantages, worked out by hand."""

import math

import pytest
import torch

from building import group, measured
from refinerl.algorithms.dapo import DAPO
from refinerl.engines.world import WorldOfOne
from refinerl.loop.batch import collate

WORLD = WorldOfOne()
MIXED = group("mixed", ([1, 2], 1.0), ([3], -1.0), ([4], None))
FLAT = group("flat", ([1], 0.5), ([2], 0.5))
LONELY = group("lonely", ([1], 0.5), ([2], None))
R2 = math.sqrt(2)


def dapo(max_tokens, penalty_in_group="before", **options):
    made = DAPO(**options)
    made.connect(max_tokens=max_tokens, penalty_in_group=penalty_in_group)
    return made


def test_dynamic_sampling_keeps_groups_whose_scored_members_differ():
    assert dapo(10).select([MIXED, FLAT, LONELY], WORLD) == ([MIXED], [FLAT, LONELY])
    assert dapo(10, dynamic_sampling=False).select([MIXED, FLAT], WORLD) == ([MIXED, FLAT], [])


def test_the_advantage_is_the_same_for_every_token_and_zero_without_a_reward():
    advantages = dapo(10).advantages(measured(collate([MIXED, FLAT])), torch.zeros(5, 2), WORLD).advantages
    # rewards 1 and −1: mean 0, std √2
    expected = torch.tensor([[1 / R2, 1 / R2], [-1 / R2, 0], [0, 0], [0, 0], [0, 0]])
    assert torch.allclose(advantages, expected, atol=1e-5)


def test_overlong_shaping_comes_before_the_normalisation():
    # L_max 2, cache 2: lengths 2 and 1 lose 1 and 0.5: rewards 0 and −1.5
    advantages = dapo(2, overlong_cache=2).advantages(measured(collate([MIXED])), torch.zeros(3, 2), WORLD).advantages
    mean, std = -0.75, 1.5 / R2
    assert advantages[0, 0].item() == pytest.approx((0 - mean) / std, abs=1e-5)
    assert advantages[1, 0].item() == pytest.approx((-1.5 - mean) / std, abs=1e-5)


def test_a_penalty_before_the_normalisation_lowers_its_response():
    penalty = torch.tensor([[0.5, 1.0], [0.0, 9.0], [0.0, 0.0]])  # the 9 lies on padding
    advantages = dapo(10, penalty_in_group="before").advantages(measured(collate([MIXED])), penalty, WORLD).advantages
    # rewards 1 − 1.5 = −0.5 and −1: mean −0.75; the task's rewards 1 and −1 have std √2
    assert advantages[:, 0].tolist() == pytest.approx([0.25 / R2, -0.25 / R2, 0], abs=1e-5)


def test_a_penalty_before_is_no_advantage_where_rewards_are_equal():
    """Divided by its own deviation, the smallest penalty would teach as much as the task."""
    rewards = group("equal", ([1], 0.1), ([2], 0.1), ([3], 0.1))
    batch = measured(collate([rewards]))
    penalty = torch.tensor([[1e-4], [2e-4], [0.0]])
    advantages = dapo(10, dynamic_sampling=False).advantages(batch, penalty, WORLD).advantages
    assert advantages.tolist() == [[0], [0], [0]]


def test_a_penalty_after_the_normalisation_is_summed_to_go():
    penalty = torch.tensor([[2.5, 1.0], [0.25, 9.0], [0.0, 0.0]])  # before, it would change which one is better
    advantages = dapo(10, penalty_in_group="after").advantages(measured(collate([MIXED])), penalty, WORLD).advantages
    assert advantages[0].tolist() == pytest.approx([1 / R2 - 3.5, 1 / R2 - 1.0], abs=1e-5)
    assert advantages[1, 0].item() == pytest.approx(-1 / R2 - 0.25, abs=1e-5)


def test_there_is_no_critic():
    assert not dapo(10).needs_critic
    with pytest.raises(TypeError, match="no critic"):
        dapo(10).value_loss(torch.zeros(1, 1), collate([FLAT]))

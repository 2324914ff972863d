"""PPO's advantages, worked out by hand on a batch."""

import math

import pytest
import torch

from building import group, measured
from refinerl.algorithms.ppo import PPO
from refinerl.engines.world import WorldOfOne
from refinerl.loop.batch import collate
from refinerl.records import Outputs

GROUPS = [group("a", ([1, 2], 1.0)), group("b", ([3], -1.0)), group("c", ([4], None))]


def test_advantages_are_whitened_gae_and_returns_are_not():
    batch = measured(collate(GROUPS), values=torch.tensor([[0.5, 0.25], [0.0, 0.0], [9.0, 9.0]]))
    batch = PPO(gamma=1.0, lam=1.0).advantages(batch, torch.zeros(3, 2), WorldOfOne())
    # A = G − V: row a: 1 − .5, 1 − .25; row b: −1 − 0. Mean 1/12, variance (.25 + .5625 + 1)/3 − 1/144.
    mean = 0.25 / 3
    std = math.sqrt(1.8125 / 3 - mean**2)
    expected = torch.tensor([[(0.5 - mean) / std, (0.75 - mean) / std], [(-1 - mean) / std, 0], [0, 0]])
    assert torch.allclose(batch.advantages, expected, atol=1e-6)
    assert torch.allclose(batch.returns, torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]))


def test_a_penalty_is_subtracted_from_the_token_it_lies_on():
    batch = measured(collate(GROUPS), values=torch.zeros(3, 2))
    penalty = torch.tensor([[0.25, 0.5], [0.0, 0.0], [7.0, 7.0]])
    returns = PPO(gamma=1.0, lam=1.0).advantages(batch, penalty, WorldOfOne()).returns
    # row a: r = −.25, 1 − .5; returns .25, .5
    assert torch.allclose(returns, torch.tensor([[0.25, 0.5], [-1.0, 0.0], [0.0, 0.0]]))


def test_all_groups_are_kept():
    assert PPO().select(GROUPS, WorldOfOne()) == (GROUPS, [])


def test_losses_are_those_of_the_equations():
    zeros = torch.zeros(1, 2)
    batch = measured(collate(GROUPS[:1]), old_logprobs=zeros, values=zeros).with_advantages(
        torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 1.0]])
    )
    outputs = Outputs(torch.full((1, 2), math.log(1.5)), torch.zeros(1, 2), torch.zeros(()))
    assert PPO().policy_loss(outputs, batch).tolist()[0] == pytest.approx([-2.4, 3.0])
    # V 1 is clipped to 0 + 0.2: 0.5·0.64; V 0.1 is within: 0.5·0.81
    assert PPO().value_loss(torch.tensor([[1.0, 0.1]]), batch).tolist()[0] == pytest.approx([0.32, 0.405])

"""KL on the tokens of y, in the reward and in the loss."""

import math

import pytest
import torch

from building import group, measured
from refinerl.constraints.none import NoConstraint
from refinerl.constraints.static import Static
from refinerl.loop.batch import collate
from refinerl.records import Anchors, Outputs

GROUPS = [group("a", ([1, 2], 1.0)), group("b", ([3], None))]
BATCH = collate(GROUPS)
LOGPROBS = torch.tensor([[math.log(0.6), math.log(0.2)], [5.0, 5.0]], dtype=torch.float64)
OUTPUTS = Outputs(LOGPROBS, torch.zeros(2, 2), torch.zeros(()))
REFERENCE = measured(BATCH, reference_logprobs=torch.full((2, 2), math.log(0.2), dtype=torch.float64))


def test_the_cost_is_the_estimate_on_scored_y():
    cost = Static(beta=1.0, estimator="k1").cost(OUTPUTS, REFERENCE)
    assert cost.tolist() == [pytest.approx([math.log(3), 0]), [0, 0]]
    assert Static(beta=1.0).anchor(GROUPS, 1) == Anchors()
    assert Static(beta=1.0).carry(cost, REFERENCE, Anchors()) is cost


def test_the_loss_is_the_weighted_sum():
    batch = REFERENCE.with_advantages(torch.zeros(2, 2))
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    loss = Static(beta=1.0, apply="loss", estimator="k2").loss(OUTPUTS, batch, weights)
    assert loss.item() == pytest.approx(0.5 * math.log(3) ** 2 / 2)


def test_no_constraint_costs_nothing():
    none = NoConstraint()
    assert none.anchor(GROUPS, 1) == Anchors()
    assert not none.rows(BATCH).any()
    assert none.loss(OUTPUTS, BATCH, torch.zeros(2)).item() == 0
    assert none.carry(none.cost(OUTPUTS, BATCH), BATCH, Anchors()).abs().sum() == 0

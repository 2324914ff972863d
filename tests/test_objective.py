"""Every equation against numbers worked out by hand (the working is in the comments)."""

import math

import pytest
import torch

from refinerl import objective as eq

LN2, LN3 = math.log(2), math.log(3)


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


ONE = torch.ones(1, 1, dtype=torch.bool)


def test_ratio_is_the_quotient_of_probabilities():
    assert torch.allclose(eq.policy_ratio(rows([math.log(0.6)]), rows([math.log(0.2)])), rows([3.0]))


def test_truncated_importance_by_token_and_by_sequence():
    old = rows([math.log(0.6), math.log(0.1), math.log(0.9)])
    engine = rows([math.log(0.2), math.log(0.2), 0.0])  # ratios 3 and 1/2; the third is no token
    mask = torch.tensor([[True, True, False]])
    token = eq.truncated_importance(old, engine, mask, "token", 2.0)
    assert torch.allclose(token, rows([2.0, 0.5, 1.0]))  # 3 is cut at the cap
    sequence = eq.truncated_importance(old, engine, mask, "sequence", 2.0)
    assert torch.allclose(sequence, rows([1.5, 1.5, 1.5]))  # 3 · 1/2
    assert torch.allclose(eq.truncated_importance(old, engine, mask, "sequence", 1.2), rows([1.2, 1.2, 1.2]))


def test_what_the_engine_did_not_say_weighs_one():
    old, engine = rows([math.log(0.6), math.log(0.1)]), rows([math.nan, math.log(0.2)])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert torch.allclose(eq.truncated_importance(old, engine, mask, "token", 2.0), rows([1.0, 0.5]))
    assert torch.allclose(eq.truncated_importance(old, engine, mask, "sequence", 2.0), rows([0.5, 0.5]))


def test_no_gradient_flows_through_the_correction():
    old = rows([math.log(0.6)]).requires_grad_()
    assert not eq.truncated_importance(old, rows([math.log(0.5)]), ONE, "token", 2.0).requires_grad


def test_mismatch_is_k3_and_the_difference_of_each_token():
    old = rows([LN2, LN2, 9.0, 9.0])
    engine = rows([0.0, LN2 + LN2, 0.0, math.nan])  # d = ln 2, −ln 2, 9; then unknown
    kl, distance = eq.mismatch(old, engine)
    # 2 − 1 − ln 2 and 1/2 − 1 + ln 2
    assert kl[0, :2].tolist() == pytest.approx([1 - math.log(2), math.log(2) - 0.5], abs=1e-12)
    assert distance[0, :3].tolist() == pytest.approx([LN2, LN2, 9.0], abs=1e-12)
    assert math.isnan(kl[0, 3])
    assert math.isnan(distance[0, 3])


@pytest.mark.parametrize(
    ("ratio", "advantage", "low", "high", "loss"),
    [
        (1.5, 2.0, 0.2, 0.2, -2.4),  # clipped above: 1.2 · 2
        (1.5, -2.0, 0.2, 0.2, 3.0),  # min keeps the worse: 1.5 · −2
        (0.5, 2.0, 0.2, 0.2, -1.0),  # min keeps the worse: 0.5 · 2
        (0.5, -2.0, 0.2, 0.2, 1.6),  # clipped below: 0.8 · −2
        (1.25, 2.0, 0.2, 0.3, -2.5),  # DAPO's clip-higher leaves 1.25 alone
        (1.5, 2.0, 0.2, 0.3, -2.6),  # and clips at 1.3
        (1.1, 1.0, 0.2, 0.2, -1.1),
    ],
)
def test_clipped_surrogate(ratio, advantage, low, high, loss):
    found = eq.policy_ratio(rows([math.log(ratio)]), rows([0.0]))
    value = eq.clipped_objective(found, rows([advantage]), low, high)
    assert value.item() == pytest.approx(loss, abs=1e-12)


def test_clipped_tokens_are_those_whose_gradient_stops():
    ratio, advantage = rows([1.5, 1.5, 0.5, 0.5, 1.0]), rows([1, -1, 1, -1, 1])
    low, high = eq.clipped_tokens(ratio, advantage, 0.2, 0.2)
    assert low.tolist() == [[False, False, False, True, False]]
    assert high.tolist() == [[True, False, False, False, False]]
    logprobs = ratio.log().requires_grad_()
    found = eq.policy_ratio(logprobs, torch.zeros_like(ratio))
    eq.clipped_objective(found, advantage, 0.2, 0.2).sum().backward()
    assert (logprobs.grad == 0).tolist() == (low | high).tolist()


def test_token_reduction_is_one_mean_over_all_tokens():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    x = rows([1, 2, 3], [10, 99, 99])
    assert (x * eq.token_weights(mask, "token", tokens=4, sequences=2)).sum().item() == pytest.approx(16 / 4)
    # sequence: ((1+2+3)/3 + 10)/2 = 6
    assert (x * eq.token_weights(mask, "sequence", tokens=4, sequences=2)).sum().item() == pytest.approx(6)


def test_token_rewards_end_with_the_clipped_reward():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    penalty = rows([0.1, 0.2, 9.0], [0.0, 0.5, 1.0])
    got = eq.token_rewards(torch.tensor([1.0, 42.0], dtype=torch.float64), penalty, mask)
    # row 1: −0.1, 1 − 0.2, nothing after the end; row 2: R is clipped to 10, then 10 − 1
    assert torch.allclose(got, rows([-0.1, 0.8, 0.0], [0.0, -0.5, 9.0]))


def test_gae_worked_out_by_hand():
    rewards, values = rows([0.0, 0.0, 1.0]), rows([0.5, 0.25, 0.75])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = eq.generalized_advantages(rewards, values, mask, gamma=1.0, lam=0.5)
    # δ3 = 1 − .75 = .25; δ2 = .75 − .25 = .5; δ1 = .25 − .5 = −.25; A3 = .25; A2 = .5 + .125; A1 = −.25 + .3125
    assert torch.allclose(advantages, rows([0.0625, 0.625, 0.25]))
    assert torch.allclose(returns, rows([0.5625, 0.875, 1.0]))


def test_gae_discounts_and_ignores_padding():
    rewards, values = rows([1.0, 2.0, 7.0]), rows([0.5, 1.0, 3.0])
    mask = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    advantages, returns = eq.generalized_advantages(rewards, values, mask, gamma=0.9, lam=1.0)
    # δ2 = 2 − 1 = 1; δ1 = 1 + .9 − .5 = 1.4; A1 = 1.4 + .9
    assert torch.allclose(advantages, rows([2.3, 1.0, 0.0]))
    assert torch.allclose(returns, rows([2.8, 2.0, 0.0]))


def test_whitening_uses_the_moments_of_all_ranks():
    mask = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    here, there = rows([1.0, 3.0, 50.0]), rows([5.0, 7.0, 50.0])
    total = eq.moments(here, mask) + eq.moments(there, mask)
    assert total.tolist() == [4, 16, 84]
    # mean 4, variance 84/4 − 16 = 5
    got = eq.whiten(here, mask, total)
    assert torch.allclose(got, rows([-3 / math.sqrt(5), -1 / math.sqrt(5), 0.0]), atol=1e-6)


def test_group_advantages_have_bessels_correction():
    # mean 0, std sqrt(((1)² + (−1)²) / 1) = sqrt 2
    got = eq.group_advantages(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert got.tolist() == pytest.approx([1 / (math.sqrt(2) + 1e-6), -1 / (math.sqrt(2) + 1e-6)])
    assert eq.group_advantages(torch.tensor([1.0])).tolist() == [0.0]
    assert eq.group_advantages(torch.tensor([0.3, 0.3, 0.3])).abs().max() < 1e-1


def test_penalty_to_go():
    mask = torch.tensor([[1, 1, 1, 0]], dtype=torch.bool)
    assert eq.penalty_to_go(rows([1, 2, 4, 8]), mask).tolist() == [[7, 6, 4, 0]]


def test_overlong_shaping_falls_linearly_to_minus_one():
    lengths = torch.tensor([50, 80, 90, 100, 120])
    assert eq.overlong_penalty(lengths, max_length=100, cache=20).tolist() == [0, 0, -0.5, -1, -1]
    assert eq.overlong_penalty(lengths, max_length=100, cache=0).tolist() == [0, 0, 0, 0, 0]


def test_value_loss_takes_the_worse_of_clipped_and_unclipped():
    # V 1.0 clipped to 0.5 + 0.2 = 0.7: 0.5·max((1−1)², (0.7−1)²) = 0.045
    assert eq.clipped_value_loss(rows([1.0]), rows([0.5]), rows([1.0]), 0.2).item() == pytest.approx(0.045)
    # within the clip: 0.5·(0.6 − 1)² = 0.08
    assert eq.clipped_value_loss(rows([0.6]), rows([0.5]), rows([1.0]), 0.2).item() == pytest.approx(0.08)


def test_kl_estimators():
    theta, reference = rows([math.log(0.6)]), rows([math.log(0.2)])  # d = ln 3
    assert eq.kl_estimate(theta, reference, "k1").item() == pytest.approx(LN3)
    assert eq.kl_estimate(theta, reference, "k2").item() == pytest.approx(LN3**2 / 2)
    assert eq.kl_estimate(theta, reference, "k3").item() == pytest.approx(1 / 3 - 1 + LN3)
    far = rows([50.0])
    assert eq.kl_estimate(far, rows([0.0]), "k1").item() == 10
    assert eq.kl_estimate(-far, rows([0.0]), "k1").item() == -10
    assert eq.kl_estimate(-far, rows([0.0]), "k3").item() == 10


def test_kl_gradients_in_the_loss_are_what_the_method_says():
    """k2's gradient is d·∇log π, the KL's on policy; k3's is (1 − exp(−d))·∇log π, the reverse direction's."""
    d = LN2
    for estimator, slope in (("k2", d), ("k3", 1 - math.exp(-d))):
        theta = rows([d]).requires_grad_()
        eq.kl_estimate(theta, rows([0.0]), estimator).sum().backward()
        assert theta.grad.item() == pytest.approx(slope)


def test_cross_entropy_cost_is_minus_logprob():
    assert eq.cross_entropy_cost(rows([-LN2, -LN3])).tolist() == [[LN2, LN3]]


def test_constraint_reductions():
    # sequence: 4 rollouts, token: 10 tokens of accepted ỹ
    assert eq.constraint_weight(0.5, "sequence", rollouts=4, tokens=10) == 0.125
    assert eq.constraint_weight(0.5, "token", rollouts=4, tokens=10) == 0.05
    assert eq.constraint_weight(0.5, "token", rollouts=4, tokens=0) == 0.5  # nothing accepted: no division by zero

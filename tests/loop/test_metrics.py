"""A step's metrics, from records worked out by hand."""

import math
from dataclasses import replace

import pytest

import building
from refinerl.loop.metrics import IN_EVERY_ROW, merged, rollout_metrics
from refinerl.loop.rollout import Collected
from refinerl.records import Anchors, Reward
from threads import on_ranks

KEPT = building.group("a", ((5, 6, 2), 1.0), ((5, 2), 0.0))
UNSCORED = building.group("b", ((5, 6, 7, 2), -0.5), ((9,), None))


def test_means_run_over_all_that_was_sampled_and_scored():
    found = rollout_metrics(Collected((KEPT,), (UNSCORED,), 2), Anchors())
    assert found["reward/mean"] == pytest.approx((1 + 0 - 0.5) / 3)
    assert found["reward/unscored"] == 1
    assert found["completion/length"] == pytest.approx((3 + 2 + 4 + 1) / 4)
    assert (found["rollout/groups_kept"], found["rollout/groups_dropped"], found["rollout/resamples"]) == (1, 1, 2)


def test_the_spread_is_a_sample_deviation_and_skips_groups_of_one_reward():
    found = rollout_metrics(Collected((KEPT, UNSCORED), (), 0), Anchors())
    assert found["reward/group_std"] == pytest.approx(math.sqrt(0.5))


def test_tokens_of_the_refiner_count():
    alone = rollout_metrics(Collected((KEPT,), (), 0), Anchors())
    refined = rollout_metrics(Collected((KEPT,), (), 0), Anchors(metrics={"refiner/tokens": 30.0}))
    assert (alone["tokens/step"], refined["tokens/step"]) == (5, 35)


def test_what_nobody_scored_is_nan_not_zero():
    silent = building.group("c", ((5, 2), None))
    found = rollout_metrics(Collected((silent,), (), 0), Anchors())
    assert all(math.isnan(found[name]) for name in ("reward/mean", "reward/group_std", "reward/pass_rate"))


def test_each_of_several_rewards_has_a_mean_over_all_ranks():
    def rewarded(name, *parts):
        group = building.group(name, *(((5, 2), 0.0) for _ in parts))
        rewards = [None if part is None else Reward(0.0, "scored", parts=part) for part in parts]
        rollouts = [replace(r, reward=reward) for r, reward in zip(group.rollouts, rewards, strict=True)]
        return Collected((replace(group, rollouts=tuple(rollouts)),), (), 0)

    shares = [
        rewarded("a", {"good": 1.0, "short": None, "never": None}, {"good": 4.0, "short": None, "never": None}),
        rewarded("b", {"good": 4.0, "short": 0.5, "never": None}, None),
        rewarded("c", None),
    ]
    for found in on_ranks(3, lambda world: rollout_metrics(shares[world.rank], Anchors(), world)):
        assert (found["reward/good"], found["reward/short"]) == (3.0, 0.5)
        assert math.isnan(found["reward/never"])
        assert found["reward/mean"] == 0.0


def test_a_row_refuses_a_metric_that_two_parts_measured():
    row = merged({"policy/loss": 1.0}, {"constraint/cost": 2.0})
    assert row.pop("policy/loss") == 1
    assert row.pop("constraint/cost") == 2
    assert set(row) == set(IN_EVERY_ROW) - {"constraint/cost"}
    assert all(math.isnan(value) for value in row.values())
    with pytest.raises(ValueError, match="constraint/cost was measured twice, as 2 and as 0"):
        merged({"constraint/cost": 2.0}, {"constraint/cost": 0.0})

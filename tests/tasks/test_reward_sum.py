"""Sums of several rewards, as in TRL."""

from __future__ import annotations

import pytest

from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.reward_sum import RewardSum, part_names
from refinerl.tasks.rules import load_rule
from refinerl.tasks.user_reward import UserReward

PROMPT = Prompt("1", "x", (), (1,), None)


def first(completions, **_):
    return [1.0, None, None, 2.0]


def second(completions, bonus, **_):
    return [0.5, 4.0, None, *bonus[3:]]


def scored(reward: RewardSum) -> list[Reward | None]:
    answers = [Completion((1,), (), "a", "stop")] * 4
    return reward([PROMPT] * 4, answers, [{"bonus": 8.0}] * 4)


def values(rewards: list[Reward | None]) -> list[float | None]:
    return [None if reward is None else reward.value for reward in rewards]


def test_rewards_add_up_where_they_apply():
    both = [UserReward(first), UserReward(second)]
    assert values(scored(RewardSum(both, [2.0, 0.25]))) == [2.125, 1.0, None, 6.0]
    assert values(scored(RewardSum(both))) == [1.5, 4.0, None, 10.0]
    assert scored(RewardSum(both[:1])) == [Reward(1.0, "scored"), None, None, Reward(2.0, "scored")]


def test_each_reward_is_kept_beside_the_sum():
    both = scored(RewardSum([UserReward(first, "mine:first"), UserReward(second, "mine:second")], [2.0, 0.25]))
    assert [reward and reward.parts for reward in both] == [
        {"first": 1.0, "second": 0.5},
        {"first": None, "second": 4.0},
        None,
        {"first": 2.0, "second": 8.0},
    ]
    assert all(not reward.parts for reward in scored(RewardSum([UserReward(first)])) if reward)


def test_the_highest_sum_is_that_of_the_rewards_that_apply():
    both = [UserReward(first), UserReward(second)]
    rewards = scored(RewardSum(both, [2.0, 0.25], highest=1.0))
    assert [reward and reward.most for reward in rewards] == [2.25, 0.25, None, 2.25]
    assert [reward and reward.most for reward in scored(RewardSum(both, [2.0, -0.5], highest=1.0))][:2] == [2.0, 0.0]
    assert [reward and reward.most for reward in scored(RewardSum(both[:1], highest=1.0))] == [None] * 4
    assert [reward and reward.most for reward in scored(RewardSum(both))] == [None] * 4


def test_a_batch_of_rows_without_a_column_has_no_value_there():
    """Other rows of the data have one; the function was called without its argument."""
    (reward,) = RewardSum([load_rule("answer")])([PROMPT], [Completion((1,), (), "4", "stop")], [{"pattern": "4"}])
    assert reward is None


def test_names_of_parts_are_unique():
    assert part_names(["rule:answer", "mine:brevity", "other.brevity"]) == ["answer", "mine:brevity", "other.brevity"]
    assert part_names(["mine:mean", "mine:f", "mine:f"]) == ["mine:mean", "mine:f", "mine:f#2"]
    assert part_names(["mean"]) == ["mean#2"]  # `reward/mean` is the sum's


def test_every_function_is_held_to_the_columns():
    with pytest.raises(UserError, match="second needs 'bonus'"):
        RewardSum([UserReward(first), UserReward(second)]).check(["wanted"])


def test_weights_are_one_for_each():
    with pytest.raises(ValueError, match="shorter"):
        RewardSum([UserReward(first), UserReward(second)], [1.0])

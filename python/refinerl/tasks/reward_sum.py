"""Several rewards as one: R = Σ weight·reward over those that apply to a response, as TRL adds them up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.reward_model import RewardModel
from refinerl.tasks.user_reward import UserReward, user_rewards


class RewardSum:
    """A weighted sum of reward functions and reward models.

    A response that none of them applies to (all give None) has no reward.

    Args:
        rewards: at least one.
        weights: one for each; none: 1 each.

    Raises:
        UserError: there are more weights or fewer.
    """

    def __init__(self, rewards: Sequence[UserReward | RewardModel], weights: Sequence[float] = ()) -> None:
        check_weights(len(rewards), weights)
        self._rewards = tuple(rewards)
        self._weights = tuple(weights) or (1.0,) * len(rewards)

    def check(self, columns: Collection[str]) -> None:
        """See that the data have what each function insists on; raises UserError where they do not."""
        for reward in self._rewards:
            if isinstance(reward, UserReward):
                reward.check(columns)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], rows: Sequence[Mapping[str, Any]]
    ) -> list[Reward | None]:
        """One reward for each completion; `rows[i]` are the data's columns for completion i."""
        values: list[float | None] = [None] * len(completions)
        for reward, weight in zip(self._rewards, self._weights, strict=True):
            scored = (
                user_rewards(reward, prompts, completions, rows)
                if isinstance(reward, UserReward)
                else reward(prompts, completions)
            )
            for i, one in enumerate(scored):
                if one is not None:
                    values[i] = (values[i] or 0.0) + weight * one.value
        return [None if value is None else Reward(value, "scored") for value in values]

    def telemetry(self) -> Mapping[str, float]:
        """What its reward models tell, the first of them for all."""
        for reward in self._rewards:
            if isinstance(reward, RewardModel):
                return reward.telemetry()
        return {}


def check_weights(rewards: int, weights: Sequence[float]) -> None:
    """See that there are as many weights as rewards, or none.

    Raises:
        UserError: there are not.
    """
    if weights and len(weights) != rewards:
        raise UserError(
            f"task.reward_weights must have one weight for each of the {rewards} rewards, got {len(weights)}"
        )

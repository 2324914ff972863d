"""Sum of several rewards: R = Σ weight·reward over those that apply to a response, as in TRL."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.user_reward import Scored, UserReward, scored

if TYPE_CHECKING:  # options are checked without torch
    from refinerl.tasks.reward_model import RewardModel


class RewardSum:
    """A weighted sum of reward functions and reward models.

    A response that none of them applies to (all give None) has no reward. Of several, each one's own value is kept in
    `Reward.parts`, before it is weighted, under the last part of its name (`brevity` of `my_rewards:brevity`) where no
    other has the same.

    Args:
        rewards: at least one.
        weights: one for each reward; 1 each if empty.
        highest: the highest value of each of several rewards, if it is the same; `Reward.most` is then that of their
            sum over the rewards that apply to a response.

    Raises:
        ValueError: the number of weights is not that of the rewards, which a configuration has checked before.
    """

    def __init__(
        self,
        rewards: Sequence[UserReward | RewardModel],
        weights: Sequence[float] = (),
        *,
        highest: float | None = None,
    ) -> None:
        pairs = list(zip(rewards, weights or (1.0,) * len(rewards), strict=True))
        self._rewards = tuple(reward for reward, _ in pairs)
        self._weights = tuple(weight for _, weight in pairs)
        self._highest = highest if len(pairs) > 1 else None
        self._names = part_names([r.name if isinstance(r, UserReward) else "model" for r in rewards])

    def check(self, columns: Collection[str], rows: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> None:
        """Check the data as each reward does: the columns' names, and perhaps the name and the columns of each row.

        Raises:
            UserError: they lack a column, or have a value that cannot be used.
        """
        for reward in self._rewards:
            if isinstance(reward, UserReward):
                reward.check(columns, rows)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], rows: Sequence[Mapping[str, Any]]
    ) -> list[Reward | None]:
        """Score each completion; `rows[i]` holds the data set's columns for completion i."""
        if not completions:
            return []
        parts = [self._scored(reward, prompts, completions, rows) for reward in self._rewards]
        metrics = {name: value for part in parts for name, value in part.metrics.items()}
        return [
            self._sum(
                [part.values[i] for part in parts],
                {name: value for part in parts for name, value in part.columns[i].items()},
                metrics,
            )
            for i in range(len(completions))
        ]

    @staticmethod
    def _scored(
        reward: UserReward | RewardModel,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        rows: Sequence[Mapping[str, Any]],
    ) -> Scored:
        if isinstance(reward, UserReward):
            return scored(reward, prompts, completions, rows)
        values = [None if one is None else one.value for one in reward(prompts, completions)]
        return Scored(values, [{}] * len(completions), {})

    def _sum(
        self, values: Sequence[float | None], extra: Mapping[str, Any], logged: Mapping[str, float]
    ) -> Reward | None:
        weighted = [weight * value for weight, value in zip(self._weights, values, strict=True) if value is not None]
        if not weighted:
            return None
        parts = dict(zip(self._names, values, strict=True)) if len(values) > 1 else {}
        most = None
        if self._highest is not None:
            most = highest_sum(self._highest, [w for w, v in zip(self._weights, values, strict=True) if v is not None])
        return Reward(math.fsum(weighted), "scored", parts=parts, extra=extra, logged=logged, most=most)

    def telemetry(self) -> Mapping[str, float]:
        """Return the metrics of all rewards since the last call; several reward models share the first one's names."""
        found: dict[str, float] = {}
        for reward in self._rewards:
            found = {**reward.telemetry(), **found}
        return found

    def close(self) -> None:
        """End the processes of the rewards."""
        for reward in self._rewards:
            if isinstance(reward, UserReward):
                reward.close()


def highest_sum(highest: float, weights: Iterable[float]) -> float:
    """Return the highest weighted sum of rewards from 0 to `highest`, rounded as the sums themselves.

    >>> highest_sum(1.0, [2.0, -0.5])
    2.0
    """
    return math.fsum(highest * max(weight, 0.0) for weight in weights)


TAKEN = ("mean", "group_std", "pass_rate", "unscored")
"""Metrics `reward/NAME` of every run, which no part may be named like."""


def part_names(names: Sequence[str]) -> list[str]:
    """Shorten the names of rewards to their last parts; keep a name, or number it, where that would not be unique.

    >>> part_names(["rule:answer", "my_rewards:brevity", "others.brevity", "model"])
    ['answer', 'my_rewards:brevity', 'others.brevity', 'model']
    """
    last = [re.split(r"[:.]", name)[-1] for name in names]
    chosen: list[str] = []
    for name, short in zip(names, last, strict=True):
        wanted = name if last.count(short) > 1 or short in TAKEN else short
        number = 1
        unique = wanted
        while unique in chosen or unique in TAKEN:
            number += 1
            unique = f"{wanted}#{number}"
        chosen.append(unique)
    return chosen

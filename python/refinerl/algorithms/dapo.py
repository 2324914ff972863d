"""DAPO (Yu et al., 2025): group advantages, clip-higher, dynamic sampling, token-level loss, overlong shaping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from refinerl import objective
from refinerl.contracts import World
from refinerl.objective import Reduction
from refinerl.records import Batch, Outputs, RolloutGroup


@dataclass(frozen=True)
class DAPO:
    """docs/equations.md, “Exact forms”: group advantage, dynamic sampling, overlong shaping, where a penalty enters."""

    max_tokens: int
    """L_max of the overlong shaping: the longest completion."""
    clip_low: float = 0.2
    clip_high: float = 0.3
    loss_reduction: Reduction = "token"
    dynamic_sampling: bool = True
    overlong_cache: int = 0
    penalty_in_group: Literal["before", "after"] = "before"
    needs_critic: bool = False

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Groups whose scored members' rewards differ, and the others; on task rewards, before any shaping."""
        if not self.dynamic_sampling:
            return list(groups), []
        kept = [group for group in groups if len(set(group.rewards)) > 1]
        return kept, [group for group in groups if len(set(group.rewards)) <= 1]

    def advantages(self, batch: Batch, penalty: Tensor, world: World) -> Batch:
        """The group advantage, the same for every token of a response; a group is always whole on one rank."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        rewards = batch.reward + objective.overlong_penalty(mask.sum(-1), self.max_tokens, self.overlong_cache)
        if self.penalty_in_group == "before":
            rewards = rewards - (penalty * mask).double().sum(-1)
        per_response = torch.zeros_like(rewards)
        for group in torch.unique(batch.group[batch.surrogate]):
            members = (batch.group == group) & batch.surrogate
            per_response[members] = objective.group_advantages(rewards[members])
        advantages = per_response.unsqueeze(-1) * mask
        if self.penalty_in_group == "after":
            advantages = advantages - objective.penalty_to_go(penalty.double(), mask)
        return batch.with_(advantages=advantages.float())

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) the clipped surrogate."""
        return objective.clipped_surrogate(
            outputs.logprobs, batch.old_logprobs, batch.advantages, self.clip_low, self.clip_high
        )

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """DAPO has no critic."""
        raise TypeError("DAPO has no critic, so there is no value loss")

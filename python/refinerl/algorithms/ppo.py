"""PPO (Schulman et al., 2017) as RLHF has it: token rewards, GAE on the tokens of y, a critic of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from refinerl import objective
from refinerl.contracts import World
from refinerl.objective import Reduction
from refinerl.records import Batch, Outputs, RolloutGroup


@dataclass(frozen=True)
class PPO:
    """docs/equations.md, “Exact forms”: r_t, GAE, whitening, the clipped surrogate and the clipped value loss."""

    gamma: float = 1.0
    lam: float = 0.95
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float = 0.2
    loss_reduction: Reduction = "token"
    needs_critic: bool = True

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """All groups carry a signal."""
        return list(groups), []

    def advantages(self, batch: Batch, penalty: Tensor, world: World) -> Batch:
        """GAE of r_t = −penalty_t (+ R at the last token), whitened over the y tokens of all ranks."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        rewards = objective.token_rewards(batch.reward.nan_to_num(0.0), penalty.double(), mask)
        advantages, returns = objective.generalized_advantages(
            rewards, batch.values.double(), mask, self.gamma, self.lam
        )
        total = world.all_reduce(objective.moments(advantages, mask))
        whitened = objective.whiten(advantages, mask, total)
        return batch.with_(advantages=whitened.float(), returns=returns.float())

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) the clipped surrogate."""
        return objective.clipped_surrogate(
            outputs.logprobs, batch.old_logprobs, batch.advantages, self.clip_low, self.clip_high
        )

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """(R, T) 0.5·max of the clipped and the unclipped squared error."""
        return objective.clipped_value_loss(values, batch.values, batch.returns, self.value_clip)

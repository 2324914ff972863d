"""PPO (Schulman et al., 2017) as in RLHF: token rewards, GAE on the tokens of y, a separate critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from refinerl import objective
from refinerl.algorithms.base import Algorithm
from refinerl.contracts import World
from refinerl.contracts.options import Fraction, Positive, Reads, When
from refinerl.records import Batch, Measured

if TYPE_CHECKING:
    from torch import Tensor


class PPO(Algorithm):
    """−min(ρ_t·A_t, clip(ρ_t, 1 − ε, 1 + ε)·A_t) with A_t by GAE.

    docs/equations.md, “Exact forms”: r_t, GAE, whitening, the clipped surrogate and the clipped value loss.
    """

    class Options(Algorithm.Options):
        """PPO's options; clip_high defaults to clip_low."""

        read_when = Reads(
            {
                "max_resamples": When("an algorithm that drops groups, such as dapo", lambda own, run: False),
            }
        )
        gamma: Fraction = 1.0
        """Discount factor."""
        lam: Fraction = 0.95
        """GAE's λ."""
        value_clip: Positive = 0.2
        """The critic's clip."""

        @model_validator(mode="before")
        @classmethod
        def _clip_alike(cls, given: Any) -> Any:
            if isinstance(given, Mapping) and given.get("clip_high") is None and given.get("clip_low") is not None:
                return {**given, "clip_high": given["clip_low"]}
            return given

    needs_critic = True
    reads_old_logprobs = False

    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """Compute GAE from r_t = −penalty_t, plus R at the last token, whitened over the y tokens of all ranks."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        rewards = objective.token_rewards(batch.reward.nan_to_num(0.0), penalty.double(), mask)
        advantages, returns = objective.generalized_advantages(
            rewards, batch.values.double(), mask, self.options.gamma, self.options.lam
        )
        total = world.all_reduce(objective.moments(advantages, mask))
        whitened = objective.whiten(advantages, mask, total)
        return batch.with_advantages(whitened, returns)

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """Return 0.5·max of the clipped and the unclipped squared error, (R, T)."""
        return objective.clipped_value_loss(values, batch.values, batch.returns, self.options.value_clip)

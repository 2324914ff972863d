"""The defaults of an algorithm, and of one that compares the responses to a prompt.

A group algorithm of your own overrides what differs: `ratio`, `policy_loss`, `normalise` or `advantages`;
docs/extending.md builds one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from refinerl import objective
from refinerl.contracts import World
from refinerl.contracts.options import AlgorithmOptions, Count, CountOrZero
from refinerl.objective import Reduction
from refinerl.records import Batch, Measured, Outputs, RolloutGroup

if TYPE_CHECKING:
    from torch import Tensor


class Algorithm(ABC):
    """How rewards become a policy gradient. A subclass says `advantages`; all else has PPO's form.

    Args:
        options: an instance of the class's `Options`; or else
        given: its values by name, such as `clip_low=0.1`.
    """

    class Options(AlgorithmOptions):
        """What a recipe may say of it; a subclass adds its own."""

    grouped: ClassVar[bool] = False
    """Compare the responses to one prompt: then each prompt has several."""
    needs_critic: ClassVar[bool] = False
    """Learn values."""

    def __init__(self, options: AlgorithmOptions | None = None, /, **given: Any) -> None:
        self.options: Any = self.Options(**given) if options is None else options
        self.max_tokens: int | None = None
        self.penalty_in_group: Literal["before", "after"] = "before"

    def connect(self, *, max_tokens: int, penalty_in_group: Literal["before", "after"] = "before") -> None:
        """Take over what the run says elsewhere: the longest completion, and where a penalty enters a group."""
        self.max_tokens, self.penalty_in_group = max_tokens, penalty_in_group

    @property
    def loss_reduction(self) -> Reduction:
        """How the surrogate of the tokens becomes one number."""
        reduction: Reduction = self.options.loss_reduction
        return reduction

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Keep all groups."""
        return list(groups), []

    @abstractmethod
    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """`batch.with_advantages(…)`, (R, T); `penalty` (R, T) is β·cost on y's positions, or zero."""

    def ratio(self, logprobs: Tensor, batch: Measured) -> Tensor:
        """(R, T) ρ_t = π_θ / π_old of each token."""
        return objective.policy_ratio(logprobs, batch.old_logprobs)

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) −min(ρA, clip(ρ)A), not yet masked or reduced."""
        ratio = self.ratio(outputs.logprobs, batch)
        return objective.clipped_objective(ratio, batch.advantages, self.options.clip_low, self.options.clip_high)

    def clipped(self, ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(R, T) bool twice: tokens whose gradient the lower, the upper clip stops."""
        return objective.clipped_tokens(ratio, batch.advantages, self.options.clip_low, self.options.clip_high)

    def weights(self, mask: Tensor, tokens: float, sequences: float) -> Tensor:
        """(R, T) weights that turn the sum of the tokens' losses into the minibatch's loss.

        `tokens` and `sequences` count the y of the minibatch on all ranks.
        """
        return objective.token_weights(mask, self.loss_reduction, tokens, sequences)

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """(R, T) the critic's loss for each token, not yet masked or reduced; only where `needs_critic`."""
        raise TypeError(f"{type(self).__name__} has no critic, so there is no value loss")


class GroupAlgorithm(Algorithm):
    """Advantages within the group of responses to one prompt: A_i = (R_i − mean) / (std + 1e-6) (GRPO)."""

    class Options(Algorithm.Options):
        """Several responses to each prompt."""

        samples_per_prompt: Count = 8
        """Responses to each prompt, which are compared."""
        dynamic_sampling: bool = True
        """Groups whose rewards are all equal are dropped and replaced."""
        overlong_cache: CountOrZero = 0
        """Tokens before `generation.max_tokens` over which R falls by 1; 0 is off."""

    grouped = True

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Groups whose scored members' rewards differ, and the others; on task rewards, before any shaping."""
        if not self.options.dynamic_sampling:
            return list(groups), []
        kept = [group for group in groups if len(set(group.rewards)) > 1]
        return kept, [group for group in groups if len(set(group.rewards)) <= 1]

    def normalise(self, rewards: Tensor, penalties: Tensor) -> Tensor:
        """(n,) -> (n,) the advantages of one group's scored members; the penalties, or zeros, lower their rewards."""
        return objective.group_advantages(rewards, penalties)

    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """The group advantage, the same for every token of a response; a group is always whole on one rank."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        rewards = batch.reward + self._overlong(mask.sum(-1))
        penalties = (penalty * mask).double().sum(-1) * (self.penalty_in_group == "before")
        per_response = rewards.new_zeros(rewards.shape)
        for group in sorted(set(batch.group[batch.surrogate].tolist())):
            members = (batch.group == group) & batch.surrogate
            per_response[members] = self.normalise(rewards[members], penalties[members])
        advantages = per_response.unsqueeze(-1) * mask
        if self.penalty_in_group == "after":
            advantages = advantages - objective.penalty_to_go(penalty.double(), mask)
        return batch.with_advantages(advantages)

    def _overlong(self, lengths: Tensor) -> Tensor:
        cache: int = self.options.overlong_cache
        if cache and self.max_tokens is None:
            raise ValueError("algorithm.overlong_cache needs the run's generation.max_tokens: call connect first")
        return objective.overlong_penalty(lengths, self.max_tokens or 0, cache)

"""Base classes of algorithms: of any, and of those that compare the responses to a prompt.

A group algorithm of your own overrides what differs: `ratio`, `policy_loss`, `normalise` or `advantages`;
docs/extending.md builds one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from refinerl import objective
from refinerl.contracts import World
from refinerl.contracts.options import AlgorithmOptions, Count, CountOrZero, Reads, When
from refinerl.objective import Reduction
from refinerl.records import Batch, Measured, Outputs, RolloutGroup

if TYPE_CHECKING:
    from torch import Tensor


class Algorithm(ABC):
    """An algorithm: rewards become a policy gradient. A subclass has `advantages`; the rest defaults to PPO's form.

    Args:
        options: an instance of the class's `Options`; or else
        given: its values by name, such as `clip_low=0.1`.
    """

    class Options(AlgorithmOptions):
        """The options of a recipe; a subclass adds its own."""

    grouped: ClassVar[bool] = False
    """True if it compares the responses to a prompt, of which there are then several."""
    needs_critic: ClassVar[bool] = False
    """True if it needs a critic."""
    reads_old_logprobs: ClassVar[bool]
    """False, beside a method `advantages` that does not read `batch.old_logprobs`, which saves a forward pass."""

    def __init__(self, options: AlgorithmOptions | None = None, /, **given: Any) -> None:
        self.options: Any = self.Options(**given) if options is None else options
        self.max_tokens: int | None = None
        self.penalty_in_group: Literal["before", "after"] = "before"

    def connect(self, *, max_tokens: int, penalty_in_group: Literal["before", "after"] = "before") -> None:
        """Receive what other sections of the recipe set: the longest completion, and where a penalty enters a group."""
        self.max_tokens, self.penalty_in_group = max_tokens, penalty_in_group

    @property
    def loss_reduction(self) -> Reduction:
        """The mean that turns the tokens' surrogate into one number."""
        reduction: Reduction = self.options.loss_reduction
        return reduction

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Keep all groups."""
        return list(groups), []

    @abstractmethod
    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """Return `batch.with_advantages(…)`; `penalty` (R, T) is β·cost at y's positions, or zero."""

    def ratio(self, logprobs: Tensor, batch: Measured) -> Tensor:
        """Return ρ_t = π_θ / π_old of each token, (R, T)."""
        return objective.policy_ratio(logprobs, batch.old_logprobs)

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return −min(ρA, clip(ρ)A), (R, T), neither masked nor reduced."""
        ratio = self.ratio(outputs.logprobs, batch)
        return objective.clipped_objective(ratio, batch.advantages, self.options.clip_low, self.options.clip_high)

    def clipped(self, ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return two (R, T) bool masks: tokens whose gradient is stopped by the lower and by the upper clip."""
        return objective.clipped_tokens(ratio, batch.advantages, self.options.clip_low, self.options.clip_high)

    def weights(self, mask: Tensor, tokens: float, sequences: float) -> Tensor:
        """Return the (R, T) weights that turn the sum of the tokens' losses into the minibatch's loss.

        `tokens` and `sequences` count the y of the minibatch on all ranks.
        """
        return objective.token_weights(mask, self.loss_reduction, tokens, sequences)

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the critic's loss for each token, (R, T), neither masked nor reduced; only if `needs_critic`."""
        raise TypeError(f"{type(self).__name__} has no critic, so there is no value loss")


class GroupAlgorithm(Algorithm):
    """Advantages within the group of responses to one prompt: A_i = (R_i − mean) / (std + 1e-6) (GRPO)."""

    class Options(Algorithm.Options):
        """Options with several responses per prompt."""

        read_when = Reads(
            {
                "max_resamples": When("algorithm.dynamic_sampling=true", lambda own, run: own.dynamic_sampling),
            }
        )
        samples_per_prompt: Count = 8
        """Responses per prompt, which are compared."""
        dynamic_sampling: bool = True
        """Drop groups whose rewards are all equal, and draw new prompts."""
        overlong_cache: CountOrZero = 0
        """Tokens before `generation.max_tokens` over which R falls by 1; 0: off."""

    grouped = True
    reads_old_logprobs = False

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Split the groups into those whose task rewards differ and the others, before any shaping."""
        if not self.options.dynamic_sampling:
            return list(groups), []
        kept = [group for group in groups if len(set(group.rewards)) > 1]
        return kept, [group for group in groups if len(set(group.rewards)) <= 1]

    def normalise(self, rewards: Tensor, penalties: Tensor) -> Tensor:
        """Return the advantages of a group's scored members, (n,), from their rewards and the penalties on them."""
        return objective.group_advantages(rewards, penalties)

    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """Give each token the group advantage of its response. A group is always whole on one rank."""
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

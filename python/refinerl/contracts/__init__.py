"""The protocols between the parts of a run. `run/wiring.py` connects implementations of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from refinerl.objective import Reduction
from refinerl.records import (
    Anchors,
    Batch,
    Completion,
    Decoding,
    Measured,
    Message,
    Outputs,
    Prompt,
    Reply,
    Reward,
    Rollout,
    RolloutGroup,
    Rows,
    Sampling,
)

if TYPE_CHECKING:  # the options of algorithms and constraints are read without torch
    from torch import Tensor


class Clock(Protocol):
    """Times the phases of a step: `with clock("generate", total):` adds to that phase and shows its progress."""

    def __call__(self, phase: str, total: int | None = None) -> AbstractContextManager[None]:
        """Time a phase; `total` is the maximum number of tokens that it generates, if it generates any."""


Finished = Callable[[int, int, Completion], None]
"""A function of the index of a prompt, the number of its completion from 0 on, and the completion."""

Arrived = Callable[[int, int, Reply], None]
"""A function of the index of a conversation, the number of its reply from 0 on, and the reply."""


class Generator(Protocol):
    """An engine that generates completions."""

    @property
    def context_length(self) -> int:
        """Maximum tokens of prompt and completion together."""

    @property
    def decoded(self) -> Decoding:
        """Counts of all completions since the engine was made."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        adapter: bool = True,
        drafts: Sequence[Sequence[int]] | None = None,
        finished: Finished | None = None,
    ) -> list[list[Completion]]:
        """Generate `sampling.n` completions for each prompt, in order. They do not depend on how prompts are batched.

        Args:
            prompts: token ids.
            sampling: temperature, lengths, seeds.
            adapter: False uses the base model of a LoRA policy.
            drafts: token ids that the outputs probably copy; a hint that may only change the speed.
            finished: called with each completion as soon as it is written, in any order, if the engine can.
        """

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load the trainer's weights."""

    def sleep(self) -> None:
        """Free device memory between phases."""

    def wake(self) -> None:
        """Undo `sleep`."""


class Author(Protocol):
    """A model that refines. It takes conversations and returns texts, so its tokenizer does not matter."""

    @property
    def decoded(self) -> Decoding | None:
        """Counts of all that its engine has written; None if they are not known, as for a server."""

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        drafts: Sequence[Sequence[int]],
        arrived: Arrived | None = None,
    ) -> list[list[Reply | None]]:
        """Generate `sampling.n` replies to each conversation, in order.

        `drafts` are tokens of the policy that the replies probably copy, as a hint. A conversation that is too long for
        a reply has an empty list. None stands for a reply that was requested but did not arrive. `arrived` is called
        with each reply as soon as there is one, in any order, by authors that can.
        """


class Trainer(Protocol):
    """A model, trainable or frozen. Policy, critic and reference are three of these."""

    def forward(self, rows: Rows, weights: Tensor | None = None, *, adapter: bool = True) -> Outputs:
        """Compute logprobs and entropies of the targets, or values; differentiable unless under `torch.no_grad()`.

        Args:
            rows: tokens and targets.
            weights: (R,) float64, the weights of the ỹ rows in `Outputs.weighted_nll`. Gradients of these rows flow
                through `weighted_nll` only. None: 0 each. With gradients, logprobs of a ỹ row of weight 0 read 0.
            adapter: False uses the base model of a LoRA policy.
        """

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""

    def step(self) -> float:
        """Clip, update, advance the schedule, zero the gradients; return the gradient's norm before clipping.

        If the norm is not finite, weights, optimizer and schedule stay as they are. `bad_gradient` then names the
        cause until `discard` is called.
        """

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""

    @property
    def reads_gradients(self) -> bool:
        """True if `gradient_norm` can be called."""

    def gradient_norm(self) -> float:
        """Return the norm of the accumulated gradient, over all ranks; `discard` is called next."""

    def discard(self) -> None:
        """Drop the accumulated gradients."""

    def bad_gradient(self) -> str | None:
        """Name the first parameter whose accumulated gradient is not finite, on any rank; None if there is none."""

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Iterate over the named parameters that the generator loads."""

    def save(self, folder: Path) -> None:
        """Save weights, optimizer and schedule, so that training continues exactly after `load`."""

    def load(self, folder: Path) -> None:
        """Undo `save`."""

    def export(self, folder: Path, *, merge: bool = True) -> None:
        """Save the model so that `from_pretrained` can load it.

        A LoRA policy that is to be merged (`lora.merge`) is also saved whole, unless `merge` is False.
        """

    def sleep(self) -> None:
        """Free device memory while the model is not in use, if it may be moved."""

    def wake(self) -> None:
        """Undo `sleep`."""


class World(Protocol):
    """The ranks of a run. Every rank makes every call, in the same order."""

    rank: int
    size: int
    local_size: int
    """Number of ranks on this machine, which share its cores."""

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """Return the sum or the maximum over all ranks."""

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order."""

    def barrier(self) -> None:
        """Wait until all ranks are here."""


class WorldOfOne:
    """A single process."""

    rank = 0
    size = 1
    local_size = 1

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """Return the value."""
        return value

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return a list of the one value."""
        return [value]

    def barrier(self) -> None:
        """Do nothing."""


ALONE = WorldOfOne()
"""The default world."""


class Task(Protocol):
    """The source of prompts and rewards."""

    max_reward: float | None
    """Upper bound of the rewards, or None. A response with this reward, or with `Reward.most` where a prompt has less,
    cannot be improved and is not refined."""

    def prompts(self) -> Sequence[Prompt]:
        """Return all prompts, in the data's order."""

    def extract(self, text: str) -> str:
        """Extract the part of a response that is scored, from y and ỹ alike."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Score each completion; None masks the sample."""

    def expect(self, prompt: Prompt, completion: Completion) -> None:
        """Begin to score a completion while others are still written, if the task can; `score` is asked for it too."""

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """Return the conversation that asks the refiner for a minimal correction of y."""

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """Turn the refiner's reply into a response to x (docs/equations.md, “What exactly ỹ is”)."""

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """Check whether ỹ only repeats an answer that the refiner was shown; it is then not accepted."""

    def refined_by(self, template: str) -> Task:
        """Return the same task, scoring included, with another template for the refiner."""

    def telemetry(self) -> Mapping[str, float]:
        """Return metrics since the last call, such as `sandbox/tests_per_second`; they are summed over ranks."""

    def close(self) -> None:
        """Stop the processes that score."""


class Algorithm(Protocol):
    """The policy gradient that rewards are turned into; `refinerl.algorithms.Algorithm` has the defaults."""

    @property
    def grouped(self) -> bool:
        """True if the responses to one prompt are compared."""

    @property
    def needs_critic(self) -> bool:
        """True if a value model is trained."""

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Separate groups with a training signal from those without (dynamic sampling)."""

    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """Return `batch.with_advantages(…)`, with `returns` if there is a critic.

        `penalty` (R, T) is β·cost on y's positions, or zero.
        """

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the surrogate of each token, (R, T), neither masked nor reduced."""

    def ratio(self, logprobs: Tensor, batch: Measured) -> Tensor:
        """Return the ratio that is clipped, (R, T), of each token or of its whole response."""

    def clipped(self, ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return two masks, (R, T) bool: tokens whose gradient the lower and the upper clip removes."""

    def weights(self, mask: Tensor, tokens: float, sequences: float) -> Tensor:
        """Return the weights, (R, T), of y's tokens in the minibatch's loss; both counts are over all ranks."""

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the critic's loss of each token, (R, T), neither masked nor reduced."""


class Constraint(Protocol):
    """A term of max J(θ) − β·C(θ); `refinerl.constraints.Constraint` has the defaults."""

    @property
    def beta(self) -> float:
        """The constraint's weight β."""

    @property
    def apply(self) -> Literal["loss", "reward"]:
        """The place where it acts: in the loss, with gradient, or in y's rewards, detached."""

    @property
    def reduction(self) -> Reduction:
        """The count by which the summed cost is divided in the loss."""

    @property
    def needs_reference(self) -> bool:
        """True if `cost` reads `Measured.reference_logprobs`."""

    def metric(self, name: str) -> str:
        """Return a metric's name: `constraint/cost`, or `constraint/LABEL/cost` among several constraints."""

    def rows(self, batch: Measured) -> Tensor:
        """Select the rows whose tokens carry the cost, (R,) bool."""

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """Return the cost of each target token of `rows` in nats, (R, T), for apply=loss and apply=reward alike."""

    def loss(self, outputs: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """Return Σ weights·cost, (), differentiable. `weights` (R,) float64 hold β/N, and 0 on rows without cost."""

    def carry(self, cost: Tensor, batch: Measured, anchors: Anchors) -> Tensor:
        """Move the costs to y's positions, (R, T), for apply=reward. Their sums are preserved."""


class Constraints(Protocol):
    """The constraints of a run: one, or a sum of several."""

    @property
    def parts(self) -> Sequence[Constraint]:
        """The terms of the sum."""

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Compute what the policy is constrained to, without gradient."""

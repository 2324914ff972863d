"""The Protocols between the parts. `train.py` wires implementations of these and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from refinerl.objective import Reduction
from refinerl.records import (
    Anchors,
    Batch,
    Completion,
    Measured,
    Message,
    Outputs,
    Prompt,
    Reward,
    Rollout,
    RolloutGroup,
    Rows,
    Sampling,
)

if TYPE_CHECKING:  # the options of algorithms and constraints are read without torch
    from torch import Tensor


class Clock(Protocol):
    """`with clock("generate", total):` adds to the step's time of that phase, and shows how far it is."""

    def __call__(self, phase: str, total: int | None = None) -> AbstractContextManager[None]:
        """`total` is the number of tokens that the phase writes at most, if it writes any."""


class Generator(Protocol):
    """Writes completions."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion that fit."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        adapter: bool = True,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order; the same ones however the prompts are batched.

        `adapter=False` asks for the base model of a LoRA policy. `drafts` are token ids that the outputs probably
        copy: a hint that may only change the speed.
        """

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take over the trainer's weights."""

    def sleep(self) -> None:
        """Free device memory between phases."""

    def wake(self) -> None:
        """Undo `sleep`."""


class Trainer(Protocol):
    """ONE model, trainable or frozen: policy, critic and reference are three of these."""

    def forward(self, rows: Rows, weights: Tensor | None = None, *, adapter: bool = True) -> Outputs:
        """Logprobs and entropies of the targets, or values. Differentiable unless under `torch.no_grad()`.

        `weights` (R,) float64 are those of the ỹ rows in `Outputs.weighted_nll`, through which alone these rows are
        differentiable; None is 0 for each. With gradients, the logprobs of a ỹ row of weight 0 read 0.
        """

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""

    def step(self) -> float:
        """Clip, update, advance the schedule, zero the gradients; returns the gradient's norm before clipping.

        A norm that is not finite leaves weights, optimizer and schedule untouched and is returned; what led to it can
        be asked of `bad_gradient` until `discard`.
        """

    def discard(self) -> None:
        """Forget the accumulated gradients."""

    def bad_gradient(self) -> str | None:
        """The first parameter whose accumulated gradient is not finite, on any rank; None if there is none."""

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Named parameters as the generator loads them."""

    def save(self, folder: Path) -> None:
        """Weights, optimizer and schedule, so that `load` continues exactly."""

    def load(self, folder: Path) -> None:
        """Undo `save`."""

    def export(self, folder: Path) -> None:
        """The model as `from_pretrained` reads it."""

    def sleep(self) -> None:
        """Free device memory while nobody uses the model, if it may be moved."""

    def wake(self) -> None:
        """Undo `sleep`."""


class World(Protocol):
    """The ranks of a run; of one process, trivial. Every rank makes every call, in the same order."""

    rank: int
    size: int
    local_size: int
    """Ranks on this machine, which share its cores."""

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum or maximum over ranks, on every rank."""

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""

    def barrier(self) -> None:
        """Wait for all."""


class WorldOfOne:
    """One process: every reduction is the value itself."""

    rank = 0
    size = 1
    local_size = 1

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """The value: the sum and the maximum over one rank."""
        return value

    def all_gather_object(self, value: Any) -> list[Any]:
        """The value, alone in a list."""
        return [value]

    def barrier(self) -> None:
        """Nobody to wait for."""


ALONE = WorldOfOne()
"""The world where nobody says otherwise."""


class Task(Protocol):
    """Where prompts and rewards come from."""

    max_reward: float | None
    """The highest reward there is, if rewards are bounded: such a y can never be improved and is not refined."""

    def prompts(self) -> Sequence[Prompt]:
        """All prompts, in the data's order."""

    def extract(self, text: str) -> str:
        """The part of a response that is scored; the same function for y and ỹ."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """One reward for each completion; None masks the sample."""

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """The conversation that asks the refiner for a minimal correction of y."""

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """The refiner's reply as a response to x (docs/equations.md, “What exactly ỹ is”)."""

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """See whether ỹ only repeats an answer that the refiner was shown; it is then not accepted."""

    def refined_by(self, template: str) -> Task:
        """The same task, what scores it included, with another template for the refiner."""

    def telemetry(self) -> Mapping[str, float]:
        """Metrics since the last call, such as `sandbox/tests_per_second`; their sums over ranks are the run's."""

    def close(self) -> None:
        """End the processes that score."""


class Algorithm(Protocol):
    """How rewards become a policy gradient; `refinerl.algorithms.Algorithm` has the defaults."""

    @property
    def grouped(self) -> bool:
        """Does it compare the responses to one prompt."""

    @property
    def needs_critic(self) -> bool:
        """Does it learn values."""

    def select(self, groups: Sequence[RolloutGroup], world: World) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
        """Groups with a signal, and those without (dynamic sampling)."""

    def advantages(self, batch: Measured, penalty: Tensor, world: World) -> Batch:
        """`batch.with_advantages(…)`, a critic's `returns` too. `penalty` (R, T): β·cost on y's positions, or zero."""

    def policy_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) the surrogate for each token, not yet masked or reduced."""

    def ratio(self, logprobs: Tensor, batch: Measured) -> Tensor:
        """(R, T) the ratio that it clips, of each token or of the token's whole response."""

    def clipped(self, ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(R, T) bool twice: tokens whose gradient its lower, its upper clip stops."""

    def weights(self, mask: Tensor, tokens: float, sequences: float) -> Tensor:
        """(R, T) weights that turn a sum over y's tokens into the minibatch's loss; both counts are of all ranks."""

    def value_loss(self, values: Tensor, batch: Batch) -> Tensor:
        """(R, T) the critic's loss for each token, not yet masked or reduced."""


class Constraint(Protocol):
    """One term of max J(θ) − β·C(θ); `refinerl.constraints.Constraint` has the defaults."""

    @property
    def beta(self) -> float:
        """The constraint's weight."""

    @property
    def apply(self) -> Literal["loss", "reward"]:
        """Where it acts: in the loss with gradient, or detached in y's rewards."""

    @property
    def reduction(self) -> Reduction:
        """In the loss: over which number the summed cost is averaged."""

    @property
    def needs_reference(self) -> bool:
        """Does `cost` read `Measured.reference_logprobs`."""

    def metric(self, name: str) -> str:
        """Its metric's name: `constraint/cost`, or `constraint/LABEL/cost` among several."""

    def rows(self, batch: Measured) -> Tensor:
        """(R,) bool: the rows whose tokens carry the cost."""

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """(R, T) nats for each target token of `rows`; for apply = loss and apply = reward alike."""

    def loss(self, outputs: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """() Σ weights·cost, differentiable; `weights` (R,) float64 hold β·1/N, and 0 on rows without the cost."""

    def carry(self, cost: Tensor, batch: Measured, anchors: Anchors) -> Tensor:
        """(R, T) the same costs on y's positions, where `apply: reward` charges them; sums are preserved."""


class Constraints(Protocol):
    """All that holds the policy: one constraint, or a sum."""

    @property
    def parts(self) -> Sequence[Constraint]:
        """Its terms."""

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """What the policy is held to. No gradient."""

"""The records that pass through a step; each is complete when it is made. Imports no other module of the package.

    Prompt -generate-> Completion -score-> Rollout -xn-> RolloutGroup
    -refine, score-> Refinement -collate-> Rows -measure-> Measured -advantages-> Batch -optimize-> Update

Shapes: R rows (every y is a row, every ỹ is a row), L tokens of prompt and completion, T tokens of completion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the options of algorithms and constraints are read without torch
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from typing_extensions import Self

Message = Mapping[str, str]
"""One turn of a conversation: `{"role": "user", "content": "…"}`."""

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended by itself (its EOS is the last token) or met a stop string; `length`: it was cut off."""


@dataclass(frozen=True)
class Prompt:
    """A question x of the task, as the policy reads it."""

    id: str
    text: str
    """The question as plain text, before any chat template."""
    messages: tuple[Message, ...]
    """The conversation before the chat template; empty if the model is prompted with bare text."""
    token_ids: tuple[int, ...]
    payload: Any
    """The task's own data for scoring an answer: tests, a reference answer, columns of the data set."""


@dataclass(frozen=True)
class Sampling:
    """A request for completions, without the prompts."""

    max_tokens: int
    temperature: float = 1.0
    """Greedy if 0."""
    top_p: float = 1.0
    top_k: int = 0
    """Off if 0."""
    n: int = 1
    """Completions per prompt."""
    seeds: Sequence[Sequence[int]] = ()
    """Seeds of 64 bits, one per completion, as `seeds[prompt][sample]`; may be empty only at temperature 0."""
    stop: tuple[str, ...] = ()
    """Generation ends at the first of these strings, which is not part of the completion."""


def sample_seed(run_seed: int, step: int, prompt_id: str, sample: int) -> int:
    """Return the 64-bit seed of a sample's noise, which depends on neither batching nor ranks."""
    text = f"{run_seed}/{step}/{prompt_id}/{sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Completion:
    """Tokens that a model wrote: y of the policy or ỹ of the refiner."""

    token_ids: tuple[int, ...]
    """Ends with the EOS if the model emitted it."""
    logprobs: tuple[float, ...]
    """Log-probability of each token under the sampling policy and temperature, in nats; empty if unknown."""
    text: str
    """Decoded without special tokens."""
    finish_reason: FinishReason


@dataclass(frozen=True)
class Decoding:
    """Counts of the work of an engine after the prompts; counts of several calls add up."""

    tokens: int = 0
    """Tokens that were written, accepted guesses included, before a stop string cuts them."""
    passes: int = 0
    """Passes of the model, each over a batch; 0 with `tokens` above 0 if the engine does not count them."""
    drafted: int = 0
    """Tokens that were guessed from a draft and verified."""
    accepted: int = 0
    """Guessed tokens that the model confirmed, so that they are among `tokens`."""

    def __add__(self, other: Decoding) -> Decoding:
        return Decoding(
            self.tokens + other.tokens,
            self.passes + other.passes,
            self.drafted + other.drafted,
            self.accepted + other.accepted,
        )

    def __sub__(self, other: Decoding) -> Decoding:
        return self + Decoding(-other.tokens, -other.passes, -other.drafted, -other.accepted)


@dataclass(frozen=True)
class Reply:
    """An answer to a conversation: the refiner's, before it becomes ỹ."""

    text: str
    """Without special tokens."""
    finish_reason: FinishReason
    written: int
    """Tokens of the reply, in the tokenizer of the model that wrote it."""
    read: int
    """Tokens of the conversation; 0 if a server does not report them."""


@dataclass(frozen=True)
class Reward:
    """A task's verdict on a completion."""

    value: float
    outcome: str
    """The task's word for it: `passed`, `wrong_answer`, … for code, otherwise `scored`."""
    pass_rate: float | None = None
    """Share of the tests passed, if there are tests."""
    parts: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """The rewards that `value` is a weighted sum of, by name; None where one does not apply. Empty if there is one."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Values that reward functions kept with `log_extra`, by column: texts, numbers or None."""
    logged: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)
    """Numbers that reward functions kept with `log_metric` in the call that scored this completion, by name."""
    feedback: str = field(default="", compare=False)
    """Text for the refiner's `$feedback`, without anything of a hidden test; empty where the task has none."""
    failure: str = field(default="", compare=False, repr=False)
    """Excerpt of the first test that fails, a hidden one or not, for people who read the run. No model may see it."""
    passed: tuple[bool, ...] = field(default=(), compare=False, repr=False)
    """For each test, whether it was passed; empty where there are no tests."""
    most: float | None = field(default=None, compare=False, repr=False)
    """The highest value that a response to this prompt can have; None: the task's highest."""

    def is_highest(self, max_reward: float | None) -> bool:
        """Return True if no response to the prompt can have more; `max_reward` is the task's highest, if it has one."""
        return max_reward is not None and self.value >= (max_reward if self.most is None else self.most)


@dataclass(frozen=True)
class Rollout:
    """A scored response y. If its reward is None (a sandbox fault, or a user's None), it is masked and counted."""

    prompt: Prompt
    completion: Completion
    reward: Reward | None
    sample: int
    """Number of the sample within its prompt; with the step and the prompt's id it seeds the sample's noise."""

    @property
    def key(self) -> tuple[str, int]:
        """Prompt id and sample: unique within a step, because numbering continues if a prompt is drawn again."""
        return self.prompt.id, self.sample

    def improvable(self, max_reward: float | None) -> bool:
        """Return True if a refinement could have a higher reward: y has one below `max_reward` (None: unbounded)."""
        return self.reward is not None and not self.reward.is_highest(max_reward)


@dataclass(frozen=True)
class RolloutGroup:
    """All responses to one prompt.

    `surrogate` is False for a group that dynamic sampling dropped and `constraint.on_dropped` brings back: its
    refinements teach, but its y carry no policy gradient.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    surrogate: bool = True
    position: int = 0
    """Index of the prompt among those that the step drew, over all ranks."""
    left_out: tuple[float, ...] = ()
    """Rewards of members that were left out of a group without a surrogate."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """The members' task rewards, before any shaping, where there is one."""
        return tuple(r.reward.value for r in self.rollouts if r.reward is not None) + self.left_out

    @property
    def best(self) -> float | None:
        """The highest of `rewards`; None if there is none."""
        return max(self.rewards, default=None)

    def is_solved(self, max_reward: float | None) -> bool:
        """Return True if a response has the highest reward of the prompt, as `Reward.is_highest`."""
        highest = next((r.reward.most for r in self.rollouts if r.reward is not None), None)
        most = max_reward if highest is None else highest
        return max_reward is not None and most is not None and self.best is not None and self.best >= most


class Alignment(Protocol):
    """The fewest insertions and deletions that turn y (L tokens) into ỹ (L′ tokens): see `refinerl.alignment`."""

    @property
    def prefix(self) -> int:
        """Length of the common prefix."""

    @property
    def distance(self) -> int:
        """Number of insertions plus deletions."""

    @property
    def original_kept(self) -> NDArray[np.bool_]:
        """[L] mask of y's tokens that are kept in ỹ."""

    @property
    def refined_kept(self) -> NDArray[np.bool_]:
        """[L′] mask of ỹ's tokens that are kept from y."""

    @property
    def refined_to_original(self) -> NDArray[np.int64]:
        """[L′] the position of y that each token of ỹ is charged to (docs/equations.md, “Where the penalty acts”)."""

    @property
    def copy_ratio(self) -> float:
        """Share of ỹ's tokens that are kept from y, from 0 to 1; for an empty ỹ 1 if y is empty too, else 0."""


@dataclass(frozen=True)
class Refinement:
    """A scored rewrite ỹ of a rollout's y, with the filter's decision."""

    rollout: Rollout
    completion: Completion
    """ỹ as a response to x, which the policy is taught; not the refiner's raw reply."""
    reward: Reward | None
    alignment: Alignment
    accepted: bool
    weight: int
    """Number of identical accepted (x, ỹ) of the batch that it stands for; 0 if another one stands for it."""


@dataclass(frozen=True)
class Anchors:
    """The targets to which a constraint holds the policy in a step."""

    refinements: tuple[Refinement, ...] = ()
    """All refinements that were made, accepted or not."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    probes: tuple[Refinement, ...] | None = None
    """Refinements that are measured and teach nothing (`refiner.probe`); None if the step makes no probe."""


@dataclass(frozen=True)
class Rows:
    """Rows of a step as right-padded tensors on the CPU, made by `refinerl.loop.batch`, which does all padding."""

    input_ids: Tensor  # (R, L) int64, prompt then completion, padded at the right
    attention_mask: Tensor  # (R, L) bool
    prompt_lengths: Tensor  # (R,) int64
    targets: Tensor  # (R, T) int64, the completion's tokens
    mask: Tensor  # (R, T) bool, which targets are tokens
    is_constraint: Tensor  # (R,) bool, row is an accepted ỹ; else it is a y
    origin: Tensor  # (R,) int64, the row of the y that this row belongs to; its own index on y rows
    group: Tensor  # (R,) int64, index of the prompt's group
    place: Tensor  # (R,) int64, orders the y of all ranks as the step drew their prompts; that of its y on ỹ rows
    weight: Tensor  # (R,) float64, on ỹ rows how many identical (x, ỹ) the row stands for; on y rows 1, or 0 if masked
    reward: Tensor  # (R,) float64, R(x, y) before shaping; NaN where there is none
    surrogate: Tensor  # (R,) bool, y takes part in the surrogate (it has a reward, and its group was selected)
    sampling_logprobs: Tensor  # (R, T) float32 log μ(target), by the engine that sampled y; NaN where unknown

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def with_(self, **changes: Tensor) -> Self:
        """Return a copy with some tensors replaced."""
        return replace(self, **changes)

    def to(self, device: torch.device) -> Self:
        """Return a copy on another device, or this batch if it is there already."""
        if self.mask.device == device:
            return self
        return type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def select(self, rows: Tensor) -> Self:
        """Return the given rows ((n,) int64), trimmed to the longest; `origin` and `group` keep their numbers."""
        parts = {name: tensor[rows] for name, tensor in self.tensors().items()}
        length = int(parts["attention_mask"].sum(-1).max()) if len(rows) else 0
        width = int(parts["mask"].sum(-1).max()) if len(rows) else 0
        for name, tensor in parts.items():
            if tensor.dim() == 2:
                parts[name] = tensor[:, : length if name in ("input_ids", "attention_mask") else width]
        return type(self)(**parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Measured(Rows):
    """Rows with what `Updater.measure` adds: outputs of the models for y, zero on rows of ỹ and of masked y.

    π_old is the trainer's own forward pass at the sampling temperature. Before `fresh` rows the policy does not change,
    so that the forward pass of their update is π_old; until then they have NaN, and a correction of 1.
    """

    fresh: Tensor  # (R,) bool, y of the first minibatch, if the update computes their π_old itself
    old_logprobs: Tensor  # (R, T) float32 log π_old(target)
    old_entropies: Tensor  # (R, T) float32 nats under π_old
    reference_logprobs: Tensor  # (R, T) float32 log π_ref(target); NaN in a step that does not measure it
    values: Tensor  # (R, T) float32 V_old(s_t); NaN without a critic
    correction: Tensor  # (R, T) float32 weight of the surrogate that undoes the engine's mismatch; 1 without

    def with_advantages(self, advantages: Tensor, returns: Tensor | None = None) -> Batch:
        """Return the complete batch: with advantages (R, T) and, for a critic, returns (R, T), otherwise NaN."""
        returns = advantages.new_full(advantages.shape, float("nan")) if returns is None else returns
        return Batch(**self.tensors(), advantages=advantages.float(), returns=returns.float())


@dataclass(frozen=True)
class Batch(Measured):
    """Rows from which the policy learns."""

    advantages: Tensor  # (R, T) float32, zero on ỹ rows
    returns: Tensor  # (R, T) float32 G_t, the target of V(s_t); NaN without a critic


@dataclass(frozen=True)
class Outputs:
    """Outputs of a forward pass for the target tokens of its rows."""

    logprobs: Tensor  # (R, T) float32 log π_θ(target), zero where masked; differentiable on y rows
    entropies: Tensor  # (R, T) float32 nats, zero where masked; differentiable on y rows
    weighted_nll: Tensor  # () Σ weights·(−log π_θ) over ỹ rows, differentiable; zero without such rows
    values: Tensor | None = None  # (R, T) float32, of a critic; the fields above are then empty
    shared: int = 0  # tokens of the rows that were not computed, because another row begins with the same ones


@dataclass(frozen=True)
class Update:
    """Result of a step's optimizer steps."""

    metrics: Mapping[str, float]
    """Means over the optimizer steps by metric name; of `constraint/*` over the first epoch's."""
    steps: int
    """Optimizer steps taken."""
    skipped: tuple[str, ...]
    """The tensor that was not finite, for each optimizer step that was skipped."""

"""Everything that flows through a step, complete at birth. Imports nothing of ours.

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
    """A task's question x, as the policy reads it."""

    id: str
    text: str
    """The question as plain text, before any chat template."""
    messages: tuple[Message, ...]
    """The conversation that was put through the chat template; empty where the model is prompted with bare text."""
    token_ids: tuple[int, ...]
    payload: Any
    """What the task needs to score an answer: tests, a reference answer, the data set's own columns."""


@dataclass(frozen=True)
class Sampling:
    """How to sample: the whole request but for the prompts."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    n: int = 1
    """Completions per prompt."""
    seeds: Sequence[Sequence[int]] = ()
    """[prompts][n] seeds (64 bit), one for each completion; empty is allowed only at temperature 0."""
    stop: tuple[str, ...] = ()
    """Generation ends where one of these strings appears; the string is not part of the completion."""


def sample_seed(run_seed: int, step: int, prompt_id: str, sample: int) -> int:
    """The 64-bit seed of one sample's noise: independent of batching and of ranks."""
    text = f"{run_seed}/{step}/{prompt_id}/{sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Completion:
    """Tokens that a model wrote: y of the policy or ỹ of the refiner."""

    token_ids: tuple[int, ...]
    """With the EOS at the end, if the model emitted it."""
    logprobs: tuple[float, ...]
    """Nats under the sampling policy, at the sampling temperature, one for each token; empty where unknown."""
    text: str
    """Decoded without special tokens."""
    finish_reason: FinishReason


@dataclass(frozen=True)
class Reply:
    """An answer to a conversation: the refiner's, before it becomes ỹ."""

    text: str
    """Without special tokens."""
    finish_reason: FinishReason
    written: int
    """Tokens of the reply, in the tokenizer of the model that wrote it."""
    read: int
    """Tokens of the conversation; 0 where a server does not say."""


@dataclass(frozen=True)
class Reward:
    """What a task says of one completion."""

    value: float
    outcome: str
    """A word of the task's: `passed`, `wrong_answer`, … for code, `scored` where there is no more to say."""
    pass_rate: float | None = None
    """Share of the tests passed, where there are tests."""
    parts: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """The rewards that `value` is a weighted sum of, by name; None where one does not apply. Empty if there is one."""
    feedback: str = field(default="", compare=False)
    """Text for the refiner's `$feedback`, without anything of a hidden test; empty where the task has none."""
    passed: tuple[bool, ...] = field(default=(), compare=False, repr=False)
    """For each test, whether it was passed; empty where there are no tests."""


@dataclass(frozen=True)
class Rollout:
    """A scored response y. `reward` is None where there is none (a sandbox fault, a user's None): masked, counted."""

    prompt: Prompt
    completion: Completion
    reward: Reward | None
    sample: int
    """Number of this sample of the prompt; with the step and the prompt's id it seeds the noise that made it."""

    @property
    def key(self) -> tuple[str, int]:
        """Prompt id and sample: unique within a step, because a prompt that is drawn again is numbered on."""
        return self.prompt.id, self.sample

    def improvable(self, max_reward: float | None) -> bool:
        """Whether a refinement can earn more: y has a reward, and it is not the highest there is (None: no bound)."""
        return self.reward is not None and (max_reward is None or self.reward.value < max_reward)


@dataclass(frozen=True)
class RolloutGroup:
    """All responses to one prompt.

    `surrogate` is False for groups that dynamic sampling dropped and `constraint.on_dropped` keeps: their refinements
    teach, their y carry no policy gradient.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    surrogate: bool = True
    position: int = 0
    """Which of the prompts that the step drew, over all ranks."""
    left_out: tuple[float, ...] = ()
    """Rewards of the members that a group without a surrogate lacks."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """The task rewards of the members that have one, before any shaping."""
        return tuple(r.reward.value for r in self.rollouts if r.reward is not None) + self.left_out

    @property
    def best(self) -> float | None:
        """The highest of `rewards`; None without any."""
        return max(self.rewards, default=None)


class Alignment(Protocol):
    """How ỹ (L′ tokens) derives from y (L tokens) by the fewest insertions and deletions (`refinerl.alignment`)."""

    @property
    def prefix(self) -> int:
        """Length of the common prefix."""

    @property
    def distance(self) -> int:
        """Insertions plus deletions, minimal."""

    @property
    def original_kept(self) -> NDArray[np.bool_]:
        """[L] which tokens of y stand in ỹ."""

    @property
    def refined_kept(self) -> NDArray[np.bool_]:
        """[L′] which tokens of ỹ stand in y."""

    @property
    def refined_to_original(self) -> NDArray[np.int64]:
        """[L′] the position of y that each token of ỹ is charged to (docs/equations.md, “Where the penalty acts”)."""

    @property
    def copy_ratio(self) -> float:
        """Share of ỹ's tokens that are kept from y, 0 … 1; an empty ỹ has 1 if y is empty too, else 0."""


@dataclass(frozen=True)
class Refinement:
    """A scored rewrite ỹ of one rollout's y, and whether the filter let it teach."""

    rollout: Rollout
    completion: Completion
    """ỹ as a response to x: what the policy is taught, not the refiner's raw reply."""
    reward: Reward | None
    alignment: Alignment
    accepted: bool
    weight: int
    """How many identical accepted (x, ỹ) of the batch it may stand for; 0 where another one stands for it."""


@dataclass(frozen=True)
class Anchors:
    """What a constraint holds the policy to in one step."""

    refinements: tuple[Refinement, ...] = ()
    """Every refinement that was made, accepted or not."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Rows of one step as right-padded tensors on the CPU. Built by `refinerl.loop.batch`, the only place that pads."""

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
        """A copy with some tensors replaced."""
        return replace(self, **changes)

    def to(self, device: torch.device) -> Self:
        """A copy on another device; this one where it lies there already."""
        if self.mask.device == device:
            return self
        return type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def select(self, rows: Tensor) -> Self:
        """The given rows ((n,) int64), trimmed to their longest; `origin` and `group` keep the parent's numbering."""
        parts = {name: tensor[rows] for name, tensor in self.tensors().items()}
        length = int(parts["attention_mask"].sum(-1).max()) if len(rows) else 0
        width = int(parts["mask"].sum(-1).max()) if len(rows) else 0
        for name, tensor in parts.items():
            if tensor.dim() == 2:
                parts[name] = tensor[:, : length if name in ("input_ids", "attention_mask") else width]
        return type(self)(**parts)

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Measured(Rows):
    """Rows with the frozen models' view of y: what `Updater.measure` adds. Zero on ỹ rows and on masked y."""

    old_logprobs: Tensor  # (R, T) float32 log π_old(target), from the trainer's own forward at the sampling temperature
    reference_logprobs: Tensor  # (R, T) float32 log π_ref(target); NaN in a step that does not measure it
    values: Tensor  # (R, T) float32 V_old(s_t); NaN without a critic
    correction: Tensor  # (R, T) float32 weight of the surrogate that undoes the engine's mismatch; 1 without

    def with_advantages(self, advantages: Tensor, returns: Tensor | None = None) -> Batch:
        """The complete batch, of `advantages` (R, T) and a critic's targets `returns` (R, T); NaN without a critic."""
        returns = advantages.new_full(advantages.shape, float("nan")) if returns is None else returns
        return Batch(**self.tensors(), advantages=advantages.float(), returns=returns.float())


@dataclass(frozen=True)
class Batch(Measured):
    """Rows that the policy learns from."""

    advantages: Tensor  # (R, T) float32, zero on ỹ rows
    returns: Tensor  # (R, T) float32 G_t, what V(s_t) learns; NaN without a critic


@dataclass(frozen=True)
class Outputs:
    """One forward pass over a batch's rows, for their target tokens."""

    logprobs: Tensor  # (R, T) float32 log π_θ(target), zero where masked; differentiable on y rows
    entropies: Tensor  # (R, T) float32 nats, zero where masked; differentiable on y rows
    weighted_nll: Tensor  # () Σ weights·(−log π_θ) over ỹ rows, differentiable; zero without such rows
    values: Tensor | None = None  # (R, T) float32, of a critic; the fields above are then empty


@dataclass(frozen=True)
class Update:
    """What one step's optimizer steps did."""

    metrics: Mapping[str, float]
    """Means over the optimizer steps, by metric name; `constraint/*` over those of the first epoch."""
    steps: int
    """Optimizer steps taken."""
    skipped: tuple[str, ...]
    """For each optimizer step that was not taken, the tensor that was not finite."""

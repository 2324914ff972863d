"""AdamW and its learning-rate schedule, for all trainers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """The share of the peak learning rate at each step: linear warm-up, then decay.

    >>> schedule = Schedule("linear", total_steps=10, warmup=0.2)
    >>> [schedule.factor(step) for step in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]

    Raises:
        ValueError: a field is out of range.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    total_steps: int = 1
    """Optimizer steps of the whole run; after them the share stays at its last value."""
    warmup: float = 0.0
    """Share of the steps over which the rate rises to its peak, rounded up to whole steps; 0 ≤ warmup < 1."""
    minimum: float = 0.0
    """Final value of linear and cosine decay, as a share of the peak."""

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "linear", "cosine"):
            raise ValueError(f"kind must be constant, linear or cosine, got {self.kind!r}")
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup}")
        if not 0 <= self.minimum <= 1:
            raise ValueError(f"minimum must be in [0, 1], got {self.minimum}")

    def factor(self, step: int) -> float:
        """Return the share for the step with this index, counted from 0. It is positive for every step of the run."""
        warmup = math.ceil(self.warmup * self.total_steps)
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        decay = {
            "constant": 1.0,
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        }[self.kind]
        return decay + self.minimum * (1.0 - decay)


@dataclass(frozen=True)
class Optimization:
    """Settings of AdamW and its schedule."""

    learning_rate: float
    """The peak of the schedule."""
    schedule: Schedule = Schedule()
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled; on matrices only, never on norms and biases."""
    max_grad_norm: float | None = 1.0
    """Gradients with a larger norm are scaled down to this one; None disables clipping."""

    def adamw(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """Make the optimizer. Its caller sets the learning rate from the schedule before each step."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.learning_rate, betas=self.betas, eps=self.eps, fused=True
        )


def finite(gradient: Tensor) -> Tensor:
    """Tell whether all of a gradient is finite: a boolean tensor (), computed without waiting for the device.

    The norm takes one pass and no memory, where `torch.isfinite` makes tensors of the gradient's shape. A gradient
    whose norm overflows counts as not finite, as it does when gradients are clipped.
    """
    kind = torch.promote_types(gradient.dtype, torch.float32)
    return torch.isfinite(torch.linalg.vector_norm(gradient, dtype=kind))


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state from a file mapped on the host to its parameters' devices, one tensor at a time.

    The old state is dropped first, so that no device holds two.
    """
    optimizer.state.clear()
    optimizer.load_state_dict(state)
    for held in optimizer.state.values():
        for name, value in held.items():
            if isinstance(value, Tensor) and value.device.type == "cpu":
                held[name] = value.clone()  # a mapped tensor would keep the file open and be read a page at a time

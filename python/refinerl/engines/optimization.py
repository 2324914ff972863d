"""AdamW and its learning-rate schedule, as every trainer of ours uses them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """The share of the peak learning rate at each step: linear warm-up, then a decay.

    Raises:
        ValueError: a field is out of range.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    total_steps: int = 1
    """Optimizer steps of the whole run; beyond them the share stays where it ended."""
    warmup: float = 0.0
    """Share of the steps over which the rate rises to its peak, rounded up to whole steps; 0 ≤ warmup < 1."""
    minimum: float = 0.0
    """Where linear and cosine decay end, as a share of the peak."""

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
        """The share for the step with this index, counted from 0. Positive for every step of the run."""
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
    """How a model is trained."""

    learning_rate: float
    """The peak."""
    schedule: Schedule = Schedule()
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled; on matrices only, never on norms and biases."""
    max_grad_norm: float | None = 1.0
    """Longer gradients are scaled down to this length; None leaves them."""

    def adamw(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The optimizer; whoever steps it sets the learning rate by the schedule first."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.learning_rate, betas=self.betas, eps=self.eps, fused=True
        )


def finite(gradient: Tensor) -> Tensor:
    """Whether all of it is finite, (), without waiting for the device.

    By its norm, in one pass and without memory: `torch.isfinite` makes tensors of the gradient's shape. One whose norm
    overflows counts as not finite, as it does where gradients are clipped.
    """
    kind = torch.promote_types(gradient.dtype, torch.float32)
    return torch.isfinite(torch.linalg.vector_norm(gradient, dtype=kind))


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state that lies mapped on the host: onto its parameters' devices, one tensor after the other.

    What is there already gives way first, so that no device holds two states.
    """
    optimizer.state.clear()
    optimizer.load_state_dict(state)
    for held in optimizer.state.values():
        for name, value in held.items():
            if isinstance(value, Tensor) and value.device.type == "cpu":
                held[name] = value.clone()  # else it would keep the file open, and grow a page at a time

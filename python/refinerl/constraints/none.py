"""No constraint: C = 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from refinerl.objective import Reduction
from refinerl.records import Anchors, Batch, Outputs, RolloutGroup


@dataclass(frozen=True)
class NoConstraint:
    """The paper's “w/o Constraint”."""

    beta: float = 0.0
    apply: Literal["loss", "reward"] = "loss"
    reduction: Reduction = "sequence"
    needs_reference: bool = False

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Nothing."""
        return Anchors()

    def rows(self, batch: Batch) -> Tensor:
        """(R,) bool: none."""
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.mask.device)

    def cost(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) zeros."""
        return torch.zeros(batch.mask.shape, device=batch.mask.device)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """() zero."""
        return torch.zeros((), device=batch.mask.device)

    def carry(self, cost: Tensor, batch: Batch, anchors: Anchors) -> Tensor:
        """(R, T) zeros."""
        return cost

"""The dynamic constraint (Eqs. 4–6): cross-entropy on the refinements that earn strictly more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from refinerl import objective
from refinerl.alignment import charge
from refinerl.loop.refiner import Refiner
from refinerl.objective import Reduction
from refinerl.records import Anchors, Batch, Outputs, RolloutGroup


@dataclass(frozen=True)
class Dynamic:
    """C(θ) = E[ 1{R(x, ỹ) > R(x, y)} · Σ_t −log π_θ(ỹ_t | x, ỹ_<t) ]."""

    refiner: Refiner
    beta: float
    apply: Literal["loss", "reward"] = "loss"
    reduction: Reduction = "sequence"
    needs_reference: bool = False

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Refine, score, filter, align."""
        return self.refiner.refine(groups, step)

    def rows(self, batch: Batch) -> Tensor:
        """(R,) bool: the accepted ỹ."""
        return batch.is_constraint

    def cost(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(R, T) CE_t for each token of an accepted ỹ."""
        return objective.cross_entropy_cost(outputs.logprobs) * (batch.mask & batch.is_constraint.unsqueeze(-1))

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """() Σ row_weight·CE, as the fused kernel has computed it."""
        return outputs.weighted_nll

    def carry(self, cost: Tensor, batch: Batch, anchors: Anchors) -> Tensor:
        """Each accepted ỹ's costs on the positions of its own y, along their alignment; the rows must not be merged."""
        accepted = [r for r in anchors.refinements if r.accepted]
        rows = torch.nonzero(batch.is_constraint).flatten()
        if len(rows) != len(accepted):
            raise ValueError(
                f"batch must hold one row for each of {len(accepted)} accepted refinements, got {len(rows)}"
            )
        lengths = [len(r.rollout.completion.token_ids) for r in accepted]
        charged = torch.zeros_like(cost)
        if accepted:
            charges = torch.from_numpy(charge(cost[rows], [r.alignment for r in accepted], lengths)).to(cost.dtype)
            charged[batch.origin[rows], : charges.shape[1]] = charges
        return charged

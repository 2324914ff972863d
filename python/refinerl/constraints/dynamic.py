"""The dynamic constraint (Eqs. 4–6): cross-entropy on refinements with a strictly higher reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from refinerl import objective
from refinerl.constraints.base import Constraint
from refinerl.records import Anchors, Batch, Measured, Outputs, RolloutGroup

if TYPE_CHECKING:
    from torch import Tensor

    from refinerl.loop.refiner import Refiner


class Dynamic(Constraint):
    """C(θ) = E[ 1{R(x, ỹ) > R(x, y)} · Σ_t −log π_θ(ỹ_t | x, ỹ_<t) ]."""

    class Options(Constraint.Options):
        """Dynamic's options."""

        reduction: Literal["sequence", "token"] = "sequence"
        """Mean in the loss: over responses (Eq. 6) or over the tokens of the accepted ỹ."""
        accept: Literal["better", "all", "perfect"] = "better"
        """Refinements that teach: `better` than y (the paper), `all` (its ablation), `perfect` (the highest reward)."""
        accept_truncated: bool = False
        """Let refinements teach that were cut off at refiner.max_tokens, too."""
        on_dropped: bool = False
        """In the loss: also refine rollouts of groups that dynamic sampling dropped, at most as many as a batch has."""

        @model_validator(mode="after")
        def _check(self) -> Dynamic.Options:
            if self.on_dropped and self.apply != "loss":
                raise ValueError(
                    "constraint.on_dropped must be false unless the constraint is dynamic and applied in the loss"
                )
            return self

    needs_refiner = True
    measures_refiner = True

    def connect(self, refiner: Refiner) -> None:
        """Receive the run's refiner, with this constraint's filter."""
        own = replace(refiner, accept=self.options.accept, accept_truncated=self.options.accept_truncated)
        super().connect(own)

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Refine, score, filter, align."""
        return self.refiner.refine(groups, step)

    def rows(self, batch: Measured) -> Tensor:
        """Return the rows of the accepted ỹ, (R,) bool."""
        return batch.is_constraint

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """Return CE_t for each token of an accepted ỹ, (R, T)."""
        return objective.cross_entropy_cost(outputs.logprobs) * (batch.mask & batch.is_constraint.unsqueeze(-1))

    def loss(self, outputs: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """Return Σ weights·CE, which the fused kernel has computed."""
        return outputs.weighted_nll

    def carry(self, cost: Tensor, batch: Measured, anchors: Anchors) -> Tensor:
        """Carry each accepted ỹ's costs to positions of its y along their alignment; rows must not be merged."""
        from refinerl.alignment import charge  # imports torch, without which `--help` reads the options above

        accepted = [r for r in anchors.refinements if r.accepted]
        rows = batch.is_constraint.nonzero().flatten()
        if len(rows) != len(accepted):
            raise ValueError(
                f"batch must hold one row for each of {len(accepted)} accepted refinements, got {len(rows)}"
            )
        lengths = [len(r.rollout.completion.token_ids) for r in accepted]
        charged = cost.new_zeros(cost.shape)
        if accepted:
            charges = cost.new_tensor(charge(cost[rows], [r.alignment for r in accepted], lengths))
            charged[batch.origin[rows], : charges.shape[1]] = charges
        return charged

"""No constraint: C = 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from refinerl.constraints.base import Constraint
from refinerl.contracts.options import ALL, NonNegative, Reads, When
from refinerl.records import Batch, Measured, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class NoConstraint(Constraint):
    """C(θ) = 0, the paper's “w/o Constraint”."""

    class Options(Constraint.Options):
        """Options with β = 0, whatever is given."""

        read_when = Reads({ALL: When("a constraint, such as constraint.name=dynamic", lambda own, run: False)})
        beta: NonNegative = 0.0
        """Always 0."""
        reduction: Literal["sequence", "token"] = "sequence"

        @field_validator("beta")
        @classmethod
        def _zero(cls, beta: float) -> float:
            return 0.0

    def rows(self, batch: Measured) -> Tensor:
        """Return no rows, (R,) bool."""
        return batch.surrogate & False

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """Return zeros, (R, T)."""
        return batch.mask.float() * 0

    def loss(self, outputs: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """Return zero."""
        return outputs.logprobs.new_zeros(())

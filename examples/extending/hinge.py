"""Hinge-KL: a token may drift from the reference by a margin before that costs anything."""

from pydantic import Field
from torch import Tensor

from refinerl import objective
from refinerl.constraints import Constraint
from refinerl.records import Measured, Outputs


class Hinge(Constraint):
    """C(θ) = Σ_t max(0, k3_t − margin) with k3 = exp(−d) − 1 + d, d = log π_θ(y_t) − log π_ref(y_t)."""

    class Options(Constraint.Options):
        margin: float = Field(default=0.1, ge=0)
        """Nats of a token that are free."""

    needs_reference = True

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """(R, T) nats for each token of y."""
        return (objective.kl_estimate(outputs.logprobs, batch.reference_logprobs, "k3") - self.options.margin).relu()

"""The static constraint (Eqs. 2–3): KL to a fixed reference, estimated on the tokens of y."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from refinerl import objective
from refinerl.constraints.base import Constraint
from refinerl.objective import Estimator
from refinerl.records import Measured, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class Static(Constraint):
    """C(θ) = KL(π_θ ‖ π_ref) by k1 = d, k2 = d²/2 or k3 = exp(−d) − 1 + d, with d = log π_θ(y_t) − log π_ref(y_t).

    The paper's “Static”, RLHF's in-reward KL, is `apply=reward` with k1; in the loss k2 or k3.
    """

    class Options(Constraint.Options):
        """Static's options; KL in the reward by default."""

        apply: Literal["loss", "reward"] = "reward"
        """`loss`: in the loss, with gradient; `reward`: detached in y's rewards (the paper's Static)."""
        estimator: Estimator | None = None
        """Estimator of the KL. None: k1 in the reward, k2 in the loss, where k1 is refused."""

        @model_validator(mode="after")
        def _resolve(self) -> Static.Options:
            if self.estimator is None:
                self.estimator = "k1" if self.apply == "reward" else "k2"
            if self.apply == "loss" and self.estimator == "k1":
                raise ValueError(
                    "constraint.estimator must be k2 or k3 where static is applied in the loss, got k1: "
                    "its gradient there has mean zero"
                )
            return self

    needs_reference = True

    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """Estimate KL(π_θ ‖ π_ref) on each token of y, (R, T)."""
        estimate = objective.kl_estimate(outputs.logprobs, batch.reference_logprobs, self.options.estimator)
        return estimate * (batch.mask & self.rows(batch).unsqueeze(-1))

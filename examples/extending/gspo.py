"""GSPO (Zheng et al., 2025): one ratio for a whole response, clipped within a few ten-thousandths."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from refinerl.algorithms import GroupAlgorithm
from refinerl.records import Measured


class GSPO(GroupAlgorithm):
    """−min(s_i·A_i, clip(s_i, 1 − ε_low, 1 + ε_high)·A_i), s_i = exp(mean_t log π_θ(y_t) − log π_old(y_t))."""

    class Options(GroupAlgorithm.Options):
        clip_low: float = Field(default=3e-4, gt=0)
        clip_high: float = Field(default=4e-4, gt=0)
        loss_reduction: Literal["token", "sequence"] = "sequence"

    def ratio(self, logprobs: Tensor, batch: Measured) -> Tensor:
        """(R, T) s_i, the same for every token of a response; its gradient reaches them all."""
        d = (logprobs - batch.old_logprobs) * batch.mask
        lengths = batch.mask.sum(-1, keepdim=True).clamp(min=1)
        return (d.sum(-1, keepdim=True) / lengths).exp().expand_as(d)

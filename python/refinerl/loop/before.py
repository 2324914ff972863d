"""The policy before an update, as the first forward passes of the update show it."""

from __future__ import annotations

import torch
from torch import Tensor

from refinerl.records import Batch, Outputs


class Before:
    """Logprobs and entropies of the `fresh` y of a minibatch, which its own forward passes compute.

    Args:
        minibatch: rows of a batch.
    """

    def __init__(self, minibatch: Batch) -> None:
        self._fresh = minibatch.fresh
        self._taken: list[tuple[Tensor, Tensor, Tensor]] = []

    def take(self, part: Tensor, outputs: Outputs) -> None:
        """Keep the outputs of the given rows of the minibatch, (n,) int64."""
        if bool(self._fresh[part].any()):
            self._taken.append((part, outputs.logprobs.detach().cpu(), outputs.entropies.detach().cpu()))

    def complete(self, batch: Batch, rows: Tensor) -> Batch:
        """Return the batch, of which the given rows are the minibatch, with what was taken.

        Raises:
            ValueError: other rows of the batch are fresh too.
        """
        logprobs, entropies, fresh = batch.old_logprobs, batch.old_entropies, batch.fresh.clone()
        for part, found_logprobs, found_entropies in self._taken:
            mine = part[self._fresh[part]]
            logprobs = _with_rows(logprobs, rows[mine], found_logprobs[self._fresh[part]])
            entropies = _with_rows(entropies, rows[mine], found_entropies[self._fresh[part]])
            fresh[rows[mine]] = False
        if bool(fresh.any()):
            raise ValueError("batch must be measured for the step that it updates, got rows without old_logprobs")
        return batch.with_(old_logprobs=logprobs, old_entropies=entropies, fresh=fresh)


def _with_rows(values: Tensor, rows: Tensor, found: Tensor) -> Tensor:
    """Return (R, T) values with some rows replaced by (n, t) others, and zeros after them."""
    filled = values.to(torch.promote_types(values.dtype, found.dtype), copy=True)
    filled[rows] = 0
    filled[rows, : found.shape[1]] = found.to(filled.dtype)
    return filled

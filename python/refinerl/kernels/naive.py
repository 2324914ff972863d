"""The twin in plain PyTorch, over chunks of rows that are computed again in the backward pass.

It is the contract of the other implementations, the oracle of their tests, and the fallback where they do not run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

WORKSPACE = 256 * 2**20
"""Bytes that the logits of one chunk of rows may take, in the type in which they are accumulated."""


def weighted_cross_entropy(
    hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute cost (), differentiable, nll (N,) and entropy (N,). Rows of weight 0 are skipped and read 0."""
    kept = weights.nonzero().squeeze(-1)
    logprobs, entropies = token_logprobs(hidden[kept], head, bias, targets[kept], scale)
    zeros = logprobs.new_zeros(targets.shape)
    nll = zeros.index_put((kept,), -logprobs.detach())
    return -(weights[kept] * logprobs).sum(), nll, zeros.index_put((kept,), entropies.detach())


def token_logprobs(
    hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute log π(target) and entropy (N,), both differentiable, in float32, or in float64 if hidden is."""
    kind = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    chunk = max(1, WORKSPACE // (head.shape[0] * kind.itemsize))
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, head, bias))
    with torch.autocast(hidden.device.type, enabled=False):
        head = head.to(kind)
        parts = []
        for first in range(0, max(1, len(targets)), chunk):
            arguments = (hidden[first : first + chunk], head, bias, targets[first : first + chunk], scale)
            # A single chunk may keep its logits for the backward pass: they fit into the workspace.
            if differentiable and len(targets) > chunk:
                parts.append(checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(_chunk(*arguments))
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    # Scale the smaller tensors, not the logits.
    hidden = hidden.to(head.dtype) * scale
    log_pi = F.linear(hidden, head, None if bias is None else bias.to(head.dtype) * scale).log_softmax(-1)
    # Only a bias can make a token impossible; it adds nothing to the entropy, though its log is −inf.
    finite = log_pi if bias is None else log_pi.masked_fill(log_pi == -torch.inf, 0.0)
    entropies = -(log_pi.exp() * finite).sum(-1)
    return log_pi.gather(-1, targets[:, None]).squeeze(-1), entropies

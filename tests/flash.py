"""Stand-ins for PyTorch's FlashAttention for sequences of several lengths, which only GPUs have.

They compute what its documentation says: the masks are aligned at the last key, and beside the output there is the
logarithm of each query's sum of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

calls: list[tuple[str, int]] = []
"""The calls, each with its number of keys."""


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    keys: Tensor,
    most_queries: int,
    most_keys: int,
    *rest: Any,
    **options: Any,
) -> tuple[Tensor, ...]:
    """As `aten::_flash_attention_forward`: output, sums, random state, unused, debug mask."""
    assert rest == (0.0, True, False)
    assert queries.dtype == keys.dtype == torch.int32
    assert (most_queries, most_keys) == (int(queries.diff().max()), int(keys.diff().max()))
    assert (len(q), len(k)) == (int(queries[-1]), int(keys[-1]))
    calls.append(("forward", len(k)))
    found = list(_parts(*(t.cpu() for t in (q, k, v, queries, keys)), options["scale"]))
    out = torch.cat([(scores.softmax(-1) @ values).transpose(0, 1) for *_, values, scores in found])
    sums = torch.cat([scores.logsumexp(-1) for *_, scores in found], -1)
    there = torch.empty(0, device=q.device)
    return out.to(q.device), sums.to(q.device), there, there, there


def backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    sums: Tensor,
    queries: Tensor,
    keys: Tensor,
    *rest: Any,
    **options: Any,
) -> tuple[Tensor, ...]:
    """As `aten::_flash_attention_backward`: gradients of queries, keys and values."""
    calls.append(("backward", len(k)))
    device = q.device
    g, q, k, v, out, sums, queries, keys = (t.cpu() for t in (g, q, k, v, out, sums, queries, keys))
    to_q, to_k, to_v = (torch.zeros_like(t) for t in (q, k, v))
    for here, there, theirs, values, scores in _parts(q, k, v, queries, keys, options["scale"]):
        weights = (scores - sums[:, here, None]).exp()
        up = g[here].transpose(0, 1)
        slope = (up @ values.mT - (up * out[here].transpose(0, 1)).sum(-1, keepdim=True)) * weights * options["scale"]
        to_q[here] = (slope @ theirs).transpose(0, 1)
        for target, found in ((to_k, slope.mT @ q[here].transpose(0, 1)), (to_v, weights.mT @ up)):
            target[there] = found.unflatten(0, (k.shape[1], -1)).sum(1).transpose(0, 1)
    return tuple(t.to(device) for t in (to_q, to_k, to_v))


def hollow_forward(q: Tensor, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    """Take the memory of the forward pass, and compute nothing."""
    there = torch.empty(0)
    return torch.zeros_like(q), q.new_zeros((q.shape[1], len(q)), dtype=torch.float32), there, there, there


def hollow_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, queries: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, ...]:
    """Take the memory of the backward pass, and compute nothing.

    By PyTorch's sources that is, beside the result, the gradients of keys and values for each query head where several
    share one, and those of the queries in float32, with 128 more for each sequence.
    """
    taken = [q.new_zeros((len(q) + 128 * (len(queries) - 1), *q.shape[1:]), dtype=torch.float32)]
    if q.shape[1] > k.shape[1]:
        taken += [q.new_zeros((len(k), *q.shape[1:])) for _ in range(2)]
    found = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    del taken
    return found


def _parts(
    q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, scale: float
) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
    """Of each sequence its ranges, keys and values of each query head, and the scores, (heads, queries, keys)."""
    for a, b, c, d in zip(
        queries[:-1].tolist(), queries[1:].tolist(), keys[:-1].tolist(), keys[1:].tolist(), strict=True
    ):
        groups = q.shape[1] // k.shape[1]
        theirs, values = (t[c:d].transpose(0, 1).repeat_interleave(groups, 0) for t in (k, v))
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril((d - c) - (b - a))
        scores = (q[a:b].transpose(0, 1) @ theirs.mT * scale).masked_fill(~seen, float("-inf"))
        yield slice(a, b), slice(c, d), theirs, values, scores

"""Attention over the tree of rows that share prefixes (`refinerl.kernels.prefixes`).

On a CPU the core computes it (`refinerl.kernels.tree_attention`).

On a GPU a call of FlashAttention has the queries of many nodes, and for each the keys above and in it, gathered; it
aligns the mask at the last key. A prompt is gathered once for each node below it, so the calls are divided: `KEYS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from refinerl.kernels import tree_attention
from refinerl.kernels.prefixes import PrefixTree

aten = torch.ops.aten

KEYS = 2
"""Most keys that are gathered at a time on a GPU, in multiples of the tree's tokens. A layer then needs less temporary
memory than its MLP (`refinerl.run.memory.passing`)."""
_BLOCK = 128
"""Queries for which FlashAttention's backward pass takes memory in vain, for each node."""


class Call(NamedTuple):
    """A call of FlashAttention: some nodes of a tree, one after the other."""

    queries: slice
    """Their tokens."""
    keys: Tensor  # (K,) int64, the tokens that they see
    queries_up_to: Tensor  # (M + 1,) int32, 0 and the ends of the nodes in `queries`
    keys_up_to: Tensor  # (M + 1,) int32, the same in `keys`
    longest: tuple[int, int]
    """The most queries and the most keys of a node."""


class Segments:
    """The nodes of a tree for the attention of a model on this device.

    `calls` counts the layers that have asked for it.
    """

    def __init__(self, tree: PrefixTree, device: torch.device) -> None:
        self._tree = tree
        given = on(device, tree.ids, tree.positions, tree.keys, tree.starts, tree.key_starts)
        self.ids, self.positions, self.keys, self._starts, self._key_starts = given
        self.depth = int(tree.positions.max()) + 1
        """Tokens of the longest row."""
        self.calls = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Compute the attention of each token, (T, heads, width), from query (heads, T, width) and grouped keys."""
        self.calls += 1
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        width, wide = value.shape[-1], max(query.shape[-1], value.shape[-1])
        out: Tensor
        if tree_attention.usable(query):
            query, key, value = _widened(wide, query, key, value)
            out = tree_attention.tree_attention(query, key, value, self._tree.positions, scale)
        elif has_flash(query.device, query.dtype):
            wide = -(-wide // 8) * 8  # as the kernel needs it
            out = _Flash.apply(*_widened(wide, query, key, value), self.flash, scale)  # type: ignore[no-untyped-call]
        else:
            return self.plain(query, key, value, scale)
        return out if wide == width else out[..., :width]

    def plain(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Compute the same node by node with PyTorch's attention, on any device and in any type."""

        def attend(q: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
            k, v = (t.index_select(1, seen).repeat_interleave(len(q) // len(t), 0) for t in (key, value))
            mask = torch.ones(q.shape[1], len(seen), dtype=torch.bool, device=q.device).tril(len(seen) - q.shape[1])
            return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=scale)[0]

        parts = []
        keys = [self.keys[first:end] for first, end in pairwise(self._tree.key_starts.tolist())]
        for seen, (first, end) in zip(keys, pairwise(self._tree.starts.tolist()), strict=True):
            # What a node gathers is not kept for the backward pass, but gathered again.
            given = (query[:, first:end], key, value, seen)
            parts.append(checkpoint(attend, *given, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(parts, 1).transpose(0, 1)

    @cached_property
    def flash(self) -> list[Call]:
        """The calls of FlashAttention for all nodes."""
        key_starts = self._tree.key_starts.tolist()
        queries_up_to, keys_up_to = (t.to(torch.int32) for t in (self._starts, self._key_starts))
        found = []
        first, most = 0, KEYS * len(self._tree)
        for end in range(1, len(key_starts)):
            if end + 1 < len(key_starts):
                keys = key_starts[end + 1] - key_starts[first]
                if keys <= most and _BLOCK * (end + 1 - first) <= most:
                    continue  # the next node is in this call too
            nodes = slice(first, end + 1)
            here, there = self._tree.starts[nodes], self._tree.key_starts[nodes]
            found.append(
                Call(
                    slice(int(here[0]), int(here[-1])),
                    self.keys[int(there[0]) : int(there[-1])],
                    queries_up_to[nodes] - queries_up_to[first],
                    keys_up_to[nodes] - keys_up_to[first],
                    (int(here.diff().max()), int(there.diff().max())),
                )
            )
            first = end
        return found


def on(device: torch.device, *indices: Tensor) -> tuple[Tensor, ...]:
    """Move one-dimensional int64 tensors from the CPU to a device, in one copy: a GPU waits for each."""
    if device.type == "cpu":
        return indices
    return torch.split(torch.cat(indices).to(device), [len(t) for t in indices])


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether PyTorch has FlashAttention for sequences of several lengths on this device, in this type."""
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _widened(wide: int, *tensors: Tensor) -> Iterator[Tensor]:
    """Add zeros to each token's elements, (…, T, width) to (…, T, wide), which attention does not see."""
    return (F.pad(t, (0, wide - t.shape[-1])) if t.shape[-1] < wide else t for t in tensors)


class _Flash(torch.autograd.Function):
    """Attention by gathered keys, which are gathered again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: list[Call], scale: float) -> Tensor:
        q = query.transpose(0, 1).contiguous()
        result = torch.empty_like(q)
        kept: list[Tensor] = []
        for call in calls:
            places = (call.queries_up_to, call.keys_up_to, *call.longest)
            found = aten._flash_attention_forward(
                q[call.queries], *_gathered(call, key, value), *places, 0.0, True, False, scale=scale
            )
            result[call.queries], *state = found[:4]
            kept += state
        ctx.save_for_backward(q, key, value, result, *kept)
        ctx.calls, ctx.scale = calls, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, key, value, result, *kept = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_q = torch.empty_like(q)
        # A prompt's key has a gradient from each node below it: they are summed in float32.
        to_k, to_v = (t.new_zeros((t.shape[1], len(t), t.shape[2]), dtype=torch.float32) for t in (key, value))
        for number, call in enumerate(ctx.calls):
            here = call.queries
            sums, *state = kept[3 * number : 3 * number + 3]
            places = (call.queries_up_to, call.keys_up_to, *call.longest)
            given = (q[here], *_gathered(call, key, value), result[here], sums, *places, 0.0, True, *state)
            to_q[here], dk, dv = aten._flash_attention_backward(gradient[here], *given, scale=ctx.scale)
            to_k.index_add_(0, call.keys, dk.float())
            to_v.index_add_(0, call.keys, dv.float())
            del given, dk, dv  # before the next call gathers
        to_k, to_v = (t.to(key.dtype).transpose(0, 1) for t in (to_k, to_v))
        return to_q.transpose(0, 1), to_k, to_v, None, None


def _gathered(call: Call, key: Tensor, value: Tensor) -> Iterator[Tensor]:
    return (t.transpose(0, 1).index_select(0, call.keys) for t in (key, value))

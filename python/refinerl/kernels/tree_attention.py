"""Attention over a tree of rows on the CPU, with its gradient: the typed face of `refinerl_kernels::cpu::Attention`.

The tokens on the path to the current one are a stack, as they are in the core: nothing is gathered, and hardly anything
computed in vain, however short rows are. `refinerl.engines.segments` has the same in PyTorch, node by node.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_native: Any
try:
    from refinerl import _core as _native
except ImportError:  # a source tree whose extension was not built
    warnings.warn("refinerl._core is not built: attention over shared prefixes is slow", RuntimeWarning, stacklevel=2)
    _native = None

LEVELS: tuple[str, ...] = () if _native is None else tuple(_native.cross_entropy_levels())
"""The levels of SIMD that this processor has; the best one is last."""


def usable(tensor: Tensor) -> bool:
    """Tell whether the core computes attention of tensors like this one."""
    return _native is not None and tensor.device.type == "cpu"


def tree_attention(
    query: Tensor, key: Tensor, value: Tensor, depths: Tensor, scale: float, *, level: str | None = None
) -> Tensor:
    """Compute the attention of each token to those above it and itself, (T, heads, width), differentiable.

    It computes in float64 where that is the type, and else in float32, as the sums of gradients are.

    >>> value = torch.tensor([[[1.0], [2.0], [4.0]]])  # a token, and two that follow it
    >>> tree_attention(0 * value, value, value, torch.tensor([0, 1, 1]), 1.0).flatten()
    tensor([1.0000, 1.5000, 2.5000])

    Args:
        query: (heads, T, width).
        key: (key heads, T, width); query heads share them evenly.
        value: of the same shape.
        depths: (T,) int64, of the tokens in depth-first order (`PrefixTree.positions`).
        scale: factor of the scores, positive.
        level: a level of SIMD; None: the best one.

    Raises:
        ValueError: shapes do not agree, or depths are not those of tokens in depth-first order.
    """
    found: Tensor = _TreeAttention.apply(query, key, value, depths, scale, level or LEVELS[-1])  # type: ignore[no-untyped-call]
    return found


class _TreeAttention(torch.autograd.Function):
    """It keeps nothing but its arguments."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, depths: Tensor, scale: float, level: str
    ) -> Tensor:
        given = [_rows(t).numpy() for t in (query, key, value)]
        found = torch.from_numpy(_native.tree_attention(*given, depths.numpy(), **_how(scale, level)))
        ctx.save_for_backward(query, key, value, depths)
        ctx.how = scale, level
        return found.transpose(0, 1).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, depths = ctx.saved_tensors
        given = [_rows(t).numpy() for t in inputs]
        slopes = _rows(gradient.transpose(0, 1)).numpy()
        native = _native.tree_attention_backward(*given, depths.numpy(), slopes, **_how(*ctx.how))
        found = (_of_heads(torch.from_numpy(g), like) for g, like in zip(native, inputs, strict=True))
        return *found, None, None, None


def _rows(tensor: Tensor) -> Tensor:
    """Return (heads, T, width) as contiguous (T, heads, width) that the core can read."""
    tensor = tensor.detach().transpose(0, 1)
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def _of_heads(gradient: Tensor, like: Tensor) -> Tensor:
    """Add the gradients of query heads, (heads, T, width), that share one of `like`."""
    if len(gradient) != len(like):
        gradient = gradient.view(len(like), -1, *gradient.shape[1:]).sum(1)
    return gradient.to(like.dtype)


def _how(scale: float, level: str) -> dict[str, Any]:
    return {"scale": scale, "threads": torch.get_num_threads(), "level": level}

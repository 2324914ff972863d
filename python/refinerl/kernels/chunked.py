"""Shared part of the native implementations: PyTorch's matrix products over chunks of rows, an epilogue between them.

    logits = hidden[rows] · headᵀ + bias      into one workspace, reused by every chunk
    epilogue                                  statistics of the rows; the logits are replaced by their gradient
    d hidden[rows] = dlogits · head      d head += dlogitsᵀ · hidden[rows]      d bias += Σ dlogits

If the slopes of the loss are known beforehand, all this is done in the forward pass, in three products. Else the
forward pass computes the statistics alone, and the backward pass all of it, in four products together. Logits are
float32, and so are the sums over chunks. Rows that cost nothing are removed before the first product. A GPU must report
how many remain, and this is the only time that the host waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

IGNORED = -100
"""The target of a row that is ignored."""

WORKSPACE = {"cpu": 320 * 2**20, "cuda": 512 * 2**20}
"""Bytes that the logits of one chunk may take, by device type: 552 rows of 152k logits on a CPU."""

ENOUGH = {"cpu": 512}
"""Rows of a chunk above which the products are no faster, by device type.

With fewer rows they wait for the head and its gradient, which each chunk reads from memory again
(docs/measurements.md).
"""

CONVERTED = 8 * 2**20
"""Bytes of the head that are converted to float32 at a time, if its type is another."""


class Epilogue(Protocol):
    """The work on a chunk's logits: contiguous float32 (C, V); targets int64 (C,) in [0, V); the rest float32 (C,).

    With z = scale·logits, p = softmax(z): d nll/dz = p − onehot and d entropy/dz = −p·(log p + entropy).
    """

    def statistics(self, logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Compute nll and entropy."""
        ...

    def fused(
        self, logits: Tensor, targets: Tensor, grad_nll: Tensor, grad_entropy: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Compute both; overwrite the logits with the gradient of Σ grad_nll·nll + grad_entropy·entropy."""
        ...

    def kept(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Find the indices of the rows that count (N,), at the front of an int64 tensor, and their number, ()."""
        ...


class Wanted(NamedTuple):
    """The gradients that are wanted."""

    hidden: bool
    head: bool
    bias: bool


class Layer(NamedTuple):
    """hidden (N, H), head (V, H), bias (V,) or None, and the factor of the logits, 1 / temperature."""

    hidden: Tensor
    head: Tensor
    bias: Tensor | None
    scale: float


class Gradients(NamedTuple):
    """Gradients in the shape and type of their tensors; those that are not wanted are empty."""

    hidden: Tensor
    head: Tensor
    bias: Tensor


class Slopes(NamedTuple):
    """Slopes of a loss in each row's nll and entropy, (N,) each; None for zero."""

    nll: Tensor
    entropy: Tensor | None


def cross_entropy(
    epilogue: Epilogue, layer: Layer, targets: Tensor, counts: Tensor, slopes: Slopes | None, wanted: Wanted
) -> tuple[Tensor, Tensor, Gradients]:
    """Compute nll and entropy (N,) in float32, and given slopes the gradients of that loss.

    Rows that do not count are skipped and read 0.

    Raises:
        ValueError: a target is neither in the vocabulary nor ignored.
    """
    kept = _kept(epilogue, counts, targets, len(layer.head))
    nll, entropy = (torch.zeros(len(targets), dtype=torch.float32, device=targets.device) for _ in range(2))
    products = _Products(layer, kept, wanted)
    targets = _take(targets, kept)
    grad_nll, grad_entropy = (None if s is None else _take(s.float(), kept) for s in slopes or (None, None))
    for rows, hidden, logits in products.chunks():
        if grad_nll is None:
            found = epilogue.statistics(logits, targets[rows], layer.scale)
        else:
            tilts = None if grad_entropy is None else grad_entropy[rows]
            found = epilogue.fused(logits, targets[rows], grad_nll[rows], tilts, layer.scale)
            products.backward(rows, hidden, logits)
        _put(nll, kept, rows, found[0])
        _put(entropy, kept, rows, found[1])
    return nll, entropy, products.gradients()


# --- rows ----------------------------------------------------------------------------------------


def _kept(epilogue: Epilogue, counts: Tensor, targets: Tensor, vocabulary: int) -> Tensor | None:
    """Find the (K,) indices of the rows that count and are not ignored; None if all do."""
    outside = ((targets < 0) | (targets >= vocabulary)) & (targets != IGNORED)
    indices, count = epilogue.kept(counts & (targets != IGNORED))
    total, bad = torch.stack([count, outside.sum()]).tolist()
    if bad:
        raise ValueError(f"targets must be in [0, {vocabulary}) or {IGNORED}, got {int(targets[outside][0])}")
    return None if total == len(targets) else indices[:total]


def _take(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.contiguous() if kept is None else values[kept]


def _put(whole: Tensor, kept: Tensor | None, rows: slice, part: Tensor) -> None:
    if kept is None:
        whole[rows] = part
    else:
        whole.index_copy_(0, kept[rows], part)


# --- products ------------------------------------------------------------------------------------


def rows_of_a_chunk(count: int, head: Tensor) -> int:
    """Return the number of rows of a chunk. Chunks are of like size, so that the last one is not a few rows."""
    device = head.device.type
    most = max(1, min(ENOUGH.get(device, count), WORKSPACE.get(device, WORKSPACE["cpu"]) // (4 * len(head))))
    return max(1, math.ceil(count / max(1, math.ceil(count / most))))


class _Products:
    """The matrix products of some rows of a layer, and the sums of their gradients."""

    def __init__(self, layer: Layer, kept: Tensor | None, wanted: Wanted) -> None:
        hidden, head, bias, _ = layer
        self._kept, self._wanted, self._layer = kept, wanted, layer
        self._count = len(hidden) if kept is None else len(kept)
        self._head, self._bias = head.detach(), None if bias is None else bias.detach().float()
        self._native = _multiplies(hidden, head)
        self._rows = rows_of_a_chunk(self._count, head)
        converting = head.dtype != torch.float32 and not self._native
        step = max(1, CONVERTED // (4 * head.shape[1])) if converting else len(head)
        self._parts = [slice(first, min(first + step, len(head))) for first in range(0, len(head), step)]
        self._converted = self._floats(min(step, len(head)), head.shape[1]) if converting else None
        self._logits = self._floats(self._rows if self._count else 0, len(head))
        self._to_hidden = torch.zeros_like(hidden) if wanted.hidden else hidden.new_empty(0)
        self._to_head = self._floats(*head.shape) if wanted.head else head.new_empty(0)
        self._to_bias = self._floats(len(head) if wanted.bias else 0).zero_()
        self._started = False

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield each chunk's rows, their hidden states as the products need them, and their logits.

        The logits are valid until the next chunk.
        """
        kind = self._head.dtype if self._native else torch.float32
        for first in range(0, self._count, self._rows):
            rows = slice(first, min(first + self._rows, self._count))
            hidden = self._layer.hidden.detach()
            hidden = (hidden[rows] if self._kept is None else hidden[self._kept[rows]]).to(kind).contiguous()
            logits = self._logits[: len(hidden)]
            for part in self._parts:
                _multiply(hidden, self._weights(part).t(), logits[:, part])
            if self._bias is not None:
                logits.add_(self._bias)
            yield rows, hidden, logits

    def backward(self, rows: slice, hidden: Tensor, dlogits: Tensor) -> None:
        """Add a chunk's contribution to the wanted gradients, given the gradient of its logits."""
        if self._wanted.bias:
            self._to_bias += dlogits.sum(0)
        if self._native:
            dlogits = dlogits.to(hidden.dtype)
        if self._wanted.head:
            for part in self._parts:
                _multiply(dlogits[:, part].t(), hidden, self._to_head[part], add=self._started)
        if self._wanted.hidden:
            whole = self._to_hidden
            direct = self._kept is None and whole.dtype == torch.float32 and whole.is_contiguous()
            out = whole[rows] if direct else self._floats(*hidden.shape)
            for i, part in enumerate(self._parts):
                _multiply(dlogits[:, part], self._weights(part), out, add=i > 0)
            if not direct:
                _put(whole, self._kept, rows, out.to(whole.dtype))
        self._started = True

    def gradients(self) -> Gradients:
        if self._wanted.head and not self._started:
            self._to_head.zero_()
        bias = self._layer.bias
        to_bias = self._to_bias if bias is None else self._to_bias.to(bias.dtype)
        return Gradients(self._to_hidden, self._to_head.to(self._head.dtype), to_bias)

    def _weights(self, part: slice) -> Tensor:
        if self._converted is None:
            return self._head
        return self._converted[: part.stop - part.start].copy_(self._head[part])

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._head.device)


def _multiplies(hidden: Tensor, head: Tensor) -> bool:
    """Tell whether a GPU multiplies this type with float32 sums and results; then only the gradient is converted.

    Not float16, in which the slopes of a mean over many tokens underflow. Before 2.11 PyTorch may refuse to add such a
    product to float32.
    """
    return hidden.is_cuda and hidden.dtype == head.dtype == torch.bfloat16 and torch.__version__ >= "2.11"


def _multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Compute out = a·b, or out += a·b with `add`, in float32."""
    if a.dtype != torch.float32:
        if add:
            torch.ops.aten.addmm.dtype_out(out, a, b, torch.float32, out=out)
        else:
            torch.ops.aten.mm.dtype_out(a, b, torch.float32, out=out)
    elif add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)

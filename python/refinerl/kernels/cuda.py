"""The epilogue of fused cross-entropy on CUDA devices: `cuda/sequence_cross_entropy.cu` through `refinerl._core`.

Every call launches one kernel on PyTorch's current stream of the tensors' device and returns without waiting for the
device. All memory is allocated by PyTorch. docs/cuda.md describes how the kernels are built, chosen and tested without
a device.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from refinerl import _core
from refinerl.kernels import Availability

_ITEMS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def availability() -> Availability:
    """Check whether the kernels can run on a device of this machine. Initializes the CUDA driver, like `torch.cuda`."""
    embedded = tuple(_core.cuda_architectures())
    if (reason := _unfit_torch()) is not None:
        return Availability(False, reason, embedded)
    try:
        devices = _core.cuda_devices()
    except RuntimeError as error:
        return Availability(False, str(error), embedded)
    reasons = [device.reason for device in devices if device.reason is not None]
    usable = len(reasons) < len(devices)
    return Availability(usable, "" if usable else "; ".join(dict.fromkeys(reasons)), embedded)


@functools.cache
def why_not(device: int) -> str:
    """Load the kernels on a CUDA device; return the reason why they cannot run there, or an empty string."""
    if (reason := _unfit_torch()) is not None:
        return reason
    try:
        _core.cuda_load(device)
    except RuntimeError as error:
        return str(error)
    return ""


def _unfit_torch() -> str | None:
    return None if torch.version.cuda is not None else "this PyTorch is built without CUDA"


class Epilogue:
    """The contract of `chunked.Epilogue`, over rows of logits (C, V) in float32, float16 or bfloat16.

    z = scale·logits; all results of a row whose target is −100 are zero. Targets are int64. Any other target outside
    [0, V) makes its row's results NaN, because to check targets here would wait for the device. Rows may be apart in
    memory, the items of a row must be adjacent.
    """

    def statistics(self, logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Compute nll and entropy in nats, float32 (C,)."""
        rows = _rows(logits, targets, scale)
        nll, entropy = _floats(logits), _floats(logits)
        _core.cuda_statistics(_place(logits), rows, nll=nll.data_ptr(), entropy=entropy.data_ptr())
        return nll, entropy

    def fused(
        self, logits: Tensor, targets: Tensor, grad_nll: Tensor, grad_entropy: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Compute both; overwrite the logits with scale·(grad_nll·(p − onehot) − grad_entropy·p·(log p + entropy)).

        Rows that fit into the shared memory of a block are read once, others twice.
        """
        rows = _rows(logits, targets, scale)
        grad_nll = _like(logits, "grad_nll", grad_nll)
        grad_entropy = None if grad_entropy is None else _like(logits, "grad_entropy", grad_entropy)
        nll, entropy = _floats(logits), _floats(logits)
        _core.cuda_fused(
            _place(logits),
            rows,
            grad_nll=grad_nll.data_ptr(),
            grad_entropy=0 if grad_entropy is None else grad_entropy.data_ptr(),
            nll=nll.data_ptr(),
            entropy=entropy.data_ptr(),
        )
        return nll, entropy

    def kept(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Find the indices of the true elements, at the front of an int64 (N,), and their number, int64 ()."""
        indices, count = kept_rows(counts)
        return indices, count[0]


def kept_rows(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Find the indices of the weights (N,) that are not zero, in order, and their number.

    The indices are at the front of an int64 (N,). The number is int64 (1,); reading it on the host waits for the
    device, this call does not.
    """
    weights = weights.detach().to(torch.float32).contiguous()
    indices = torch.empty(len(weights), dtype=torch.int64, device=weights.device)
    count = torch.empty(1, dtype=torch.int64, device=weights.device)
    _core.cuda_kept_rows(
        _place(weights),
        weights=weights.data_ptr(),
        rows=len(weights),
        indices=indices.data_ptr(),
        count=count.data_ptr(),
    )
    return indices, count


def _place(tensor: Tensor) -> _core.CudaPlace:
    """Return a tensor's device and PyTorch's current stream on it."""
    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return _core.CudaPlace(device=tensor.get_device(), stream=stream)


def _rows(logits: Tensor, targets: Tensor, scale: float) -> _core.CudaLogits:
    if logits.dim() != 2 or logits.dtype not in _ITEMS:
        raise ValueError(f"logits must be float32, float16 or bfloat16 of shape (C, V), got {_seen(logits)}")
    if logits.stride(1) != 1 and logits.shape[1] > 1:
        raise ValueError(f"logits must have items side by side, got strides {logits.stride()}")
    if targets.shape != logits.shape[:1] or targets.dtype != torch.int64 or targets.device != logits.device:
        raise ValueError(f"targets must be int64 of shape ({len(logits)},) on {logits.device}, got {_seen(targets)}")
    if targets.stride() != (1,) and len(targets) > 1:
        raise ValueError(f"targets must be contiguous, got stride {targets.stride(0)}")
    return _core.CudaLogits(
        item=_ITEMS[logits.dtype],
        address=logits.data_ptr(),
        rows=logits.shape[0],
        stride=logits.stride(0),
        length=logits.shape[1],
        targets=targets.data_ptr(),
        scale=scale,
    )


def _floats(logits: Tensor) -> Tensor:
    return torch.empty(len(logits), dtype=torch.float32, device=logits.device)


def _like(rows: Tensor, name: str, tensor: Tensor) -> Tensor:
    """Convert a tensor of one number for each row to what the kernels read."""
    if tensor.shape != rows.shape[:1] or tensor.device != rows.device:
        raise ValueError(f"{name} must be of shape ({len(rows)},) on {rows.device}, got {_seen(tensor)}")
    return tensor.detach().to(torch.float32).contiguous()


def _seen(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"

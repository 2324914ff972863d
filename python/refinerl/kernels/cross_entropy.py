"""−log π(target) and entropy straight from hidden states, without ever holding the [N, V] logits.

`sequence_cross_entropy` is for the constraint's cost, whose weights are known before the forward pass; `token_logprobs`
is for the losses of reinforcement learning, whose upstream gradients are not. Both compute, for each of N rows,

    z = (hidden · headᵀ + bias) / temperature
    nll = logsumexp(z) − z[target]
    entropy = −Σ softmax(z) · log softmax(z)

| impl | | |
|---|---|---|
| `torch` | any device and float type | plain PyTorch, the contract of the others (`naive`) |
| `cpu` | CPU; 16- and 32-bit floats | SIMD between PyTorch's matrix products (`chunked`, `cpu`) |
| `cuda` | GPUs that the build has kernels for; 16- and 32-bit floats | the same on the GPU (`chunked`, `cuda`) |
| `auto` | | cuda on GPUs, cpu on CPUs, torch for float64 and everything else |
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from refinerl.kernels import availability, naive
from refinerl.kernels.chunked import IGNORED

Impl = Literal["auto", "torch", "cpu", "cuda"]


@dataclass(frozen=True)
class SequenceCrossEntropy:
    """The cost of N target tokens; zero for rows of weight 0 and ignored rows, which are not computed."""

    nll: Tensor  # (N,) −log π(target) in nats, no gradient
    entropy: Tensor  # (N,) nats, no gradient
    cost: Tensor  # () Σ weights·nll, differentiable in hidden, head and bias


def sequence_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    impl: Impl = "auto",
) -> SequenceCrossEntropy:
    """Compute the weighted cost of target tokens whose weights are known beforehand.

    >>> hidden, head = torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    >>> found = sequence_cross_entropy(hidden, head, torch.tensor([0, 1]), weights=torch.tensor([1.0, 0.5]))
    >>> found.nll  # log 2 for the first row, log(1 + 1/e) for the second
    tensor([0.6931, 0.3133])
    >>> found.cost
    tensor(0.8498)

    The native implementations compute the gradients here, in three matrix products, and only scale them in the backward
    pass, which does not need the head. Under gradient checkpointing that work is done twice.

    Args:
        hidden: (N, H) last hidden states, at the positions that predict the targets.
        head: (V, H) the language-model head; its type may differ from hidden's, unless one is float64.
        targets: (N,) int64 in [0, V), or −100 for rows that do not count.
        weights: (N,) of each row's nll in the cost, None for 1. Rows of weight 0 are removed first.
        temperature: divides the logits, > 0.
        bias: (V,) of the head; may be −inf, which makes a token impossible.
        impl: the implementation, see above.

    Results are float32, or float64 if hidden is; logits are computed and summed in that type. Each gradient has the
    type of its tensor. Any strides are accepted.

    Raises:
        ValueError: an argument has the wrong shape, type, device or range; the message names it.
    """
    chosen = _check(hidden, head, targets, temperature, bias, impl)
    kind = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    if weights is None:
        weights = torch.ones(targets.shape, dtype=kind, device=hidden.device)
    _check_like("weights", weights, (len(targets),), hidden.device)
    if weights.is_complex():
        raise ValueError(f"weights must be real, got {weights.dtype}")
    weights = weights.detach().to(kind)
    scale = 1.0 / temperature
    if chosen == "torch":
        weights = weights.masked_fill(targets == IGNORED, 0.0)
        cost, nll, entropy = naive.weighted_cross_entropy(hidden, head, bias, targets, weights, scale)
    else:
        from refinerl.kernels import ops

        differentiable = torch.is_grad_enabled()
        wanted = [differentiable and t is not None and t.requires_grad for t in (hidden, head, bias)]
        cost, nll, entropy, *_ = ops.weighted_cross_entropy(
            hidden, head, bias, targets, weights.contiguous(), scale, chosen, wanted
        )
    return SequenceCrossEntropy(nll=nll, entropy=entropy, cost=cost)


def token_logprobs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Compute log π(target) and entropy of each row, (N,) each, both differentiable in hidden, head and bias.

    >>> hidden, head = torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    >>> token_logprobs(hidden, head, torch.tensor([0, 1]))
    (tensor([-0.6931, -0.3133]), tensor([0.6931, 0.5822]))

    Arguments, types and errors are those of `sequence_cross_entropy`; ignored rows read 0. The native implementations
    keep hidden and head, and compute the logits again in the backward pass, for the rows that have an upstream
    gradient.
    """
    chosen = _check(hidden, head, targets, temperature, bias, impl)
    if chosen != "torch":
        from refinerl.kernels import ops

        logprobs, entropies = ops.token_logprobs(hidden, head, bias, targets, 1.0 / temperature, chosen)
        return logprobs, entropies
    ignored = targets == IGNORED
    if not bool(ignored.any()):
        return naive.token_logprobs(hidden, head, bias, targets, 1.0 / temperature)
    kept = (~ignored).nonzero().squeeze(-1)
    found = naive.token_logprobs(hidden[kept], head, bias, targets[kept], 1.0 / temperature)
    logprobs, entropies = (part.new_zeros(targets.shape).index_put((kept,), part) for part in found)
    return logprobs, entropies


# --- which implementation ------------------------------------------------------------------------


def _choose(impl: Impl, device: torch.device, dtype: torch.dtype) -> str:
    """Choose the implementation that runs.

    Raises:
        ValueError: the one that was asked for cannot run.
    """
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}, got {impl!r}")
    if impl == "torch" or (impl == "auto" and (dtype == torch.float64 or device.type not in ("cpu", "cuda"))):
        return "torch"
    if impl == "auto":
        return str(device.type) if _serves(device.type, device.index) else "torch"
    if device.type != impl:
        raise ValueError(f"impl must suit hidden's device {device}, got {impl!r}")
    if dtype == torch.float64:
        raise ValueError(f"impl must be 'torch' for float64, got {impl!r}")
    if reason := _why_not(impl, device.index):
        raise ValueError(f"impl must be one that can run here, got {impl!r}: {reason}")
    return impl


# Constants of a compiled graph: the set of implementations that can run does not change.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _why_not(kind: str, index: int | None) -> str:
    """Return the reason why native kernels do not run on this device; empty if they do."""
    if kind == "cpu":
        return availability("cpu").reason
    from refinerl.kernels import cuda

    return cuda.why_not(torch.cuda.current_device() if index is None else index)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _serves(kind: str, index: int | None) -> bool:
    """Tell whether native kernels run on this device; if not, warn once with the reason."""
    if reason := str(_why_not(kind, index)):
        _warn(f"cross-entropy runs without its {kind} kernels: {reason}")
    return not reason


@functools.cache
def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


# --- arguments -----------------------------------------------------------------------------------


def _check(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, bias: Tensor | None, impl: Impl) -> str:
    """Check the arguments; return the implementation that runs.

    The native ones check the range of the targets themselves: doing it here would break a compiled graph.

    Raises:
        ValueError: an argument is wrong; the message names the first one.
    """
    if hidden.dim() != 2 or not hidden.shape[1] or not hidden.is_floating_point():
        raise ValueError(
            f"hidden must be floats of shape (N, H ≥ 1), got {hidden.dtype} of shape {tuple(hidden.shape)}"
        )
    rows, width = hidden.shape
    if head.dim() != 2 or head.shape[1] != width or not len(head) or not head.is_floating_point():
        raise ValueError(f"head must be floats of shape (V, {width}), got {head.dtype} of shape {tuple(head.shape)}")
    _check_same("head", head, hidden)
    _check_like("targets", targets, (rows,), hidden.device)
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be finite and > 0, got {temperature}")
    if bias is not None:
        _check_like("bias", bias, (len(head),), hidden.device)
        _check_same("bias", bias, hidden)
    chosen = _choose(impl, hidden.device, hidden.dtype)
    if chosen == "torch" and rows:
        outside = targets[((targets < 0) | (targets >= len(head))) & (targets != IGNORED)]
        if len(outside):
            raise ValueError(f"targets must be in [0, {len(head)}) or {IGNORED}, got {int(outside[0])}")
    return chosen


def _check_same(name: str, tensor: Tensor, hidden: Tensor) -> None:
    if tensor.device != hidden.device:
        raise ValueError(f"{name} must be on hidden's device {hidden.device}, got {tensor.device}")
    if not tensor.is_floating_point() or (tensor.dtype == torch.float64) != (hidden.dtype == torch.float64):
        raise ValueError(f"{name} must be floats that go with hidden's {hidden.dtype}, got {tensor.dtype}")


def _check_like(name: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on hidden's device {device}, got {tensor.device}")

"""The native implementations as PyTorch operators: `torch.ops.refinerl.*`, with fake kernels and autograd formulas.

Each takes `impl`, "cpu" or "cuda", and runs that epilogue in `chunked`. Under `torch.compile` they are nodes of the
graph. Autocast does not affect them. Callers normally use `cross_entropy` instead.

`weighted_cross_entropy` keeps nothing of the head for the backward pass. `token_logprobs` saves it as `F.linear` would,
so under ZeRO-3 the module that reads `head.weight` in its forward pass, or one around it, must be one that DeepSpeed
gathers again for the backward pass, as it does for the modules of its engine's model.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from refinerl.kernels import chunked
from refinerl.kernels.chunked import Epilogue, Gradients, Layer, Slopes, Wanted

Flags = list[bool]
_NOTHING = Wanted(False, False, False)


def _epilogue(impl: str) -> Epilogue:
    # Imported on first use, so that nothing of CUDA is imported on a machine without a GPU.
    made: Epilogue = import_module(f"refinerl.kernels.{impl}").Epilogue()
    return made


# --- weights known ------------------------------------------------------------------------------


@torch.library.custom_op(
    "refinerl::weighted_cross_entropy",
    mutates_args=(),
    schema="(Tensor hidden, Tensor head, Tensor? bias, Tensor targets, Tensor weights, float scale, str impl, "
    "bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def weighted_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    scale: float,
    impl: str,
    wanted: Flags,
) -> tuple[Tensor, ...]:
    """Compute cost (), nll (N,), entropy (N,) and the wanted gradients of the cost; the others are empty."""
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        layer = Layer(hidden, head, bias, scale)
        slopes = Slopes(weights, None) if any(wanted) else None
        found = chunked.cross_entropy(_epilogue(impl), layer, targets, weights != 0, slopes, Wanted(*wanted))
        nll, entropy, gradients = found
        cost = (weights.double() * nll).sum().float()
    return (cost, nll, entropy, *gradients)


@weighted_cross_entropy.register_fake
def _(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    scale: float,
    impl: str,
    wanted: Flags,
) -> tuple[Tensor, ...]:
    rows = weights.new_empty(targets.shape)
    return (weights.new_empty(()), rows, torch.empty_like(rows), *_fake_gradients(hidden, head, bias, wanted))


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *others = output
    ctx.mark_non_differentiable(*others)
    ctx.save_for_backward(*others[2:])
    ctx.wanted = inputs[-1]
    ctx.set_materialize_grads(False)


def _scale_gradients(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    none = (None,) * 5
    if upstream is None:
        return (None, None, None, *none)
    in_place = _consumed(upstream)
    found: list[Tensor | None] = []
    for gradient, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True):
        if not wanted:
            found.append(None)
        else:
            found.append(gradient.mul_(upstream) if in_place else gradient * upstream.to(gradient.dtype))
    return (*found, *none)


def _consumed(upstream: Tensor) -> bool:
    """Tell whether this is the last backward pass through the graph, so that tensors saved for it may be overwritten.

    A copy of the head's gradient would double the memory of the largest tensor.
    """
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    # Traced tensors are of other types, and the tracer avoids the copy by itself.
    return keeps is not None and type(upstream) is Tensor and not torch.compiler.is_compiling() and not keeps()


weighted_cross_entropy.register_autograd(_scale_gradients, setup_context=_save_gradients)


# --- weights unknown ----------------------------------------------------------------------------


@torch.library.custom_op(
    "refinerl::token_logprobs",
    mutates_args=(),
    schema="(Tensor hidden, Tensor head, Tensor? bias, Tensor targets, float scale, str impl) -> (Tensor, Tensor)",
)
def token_logprobs(
    hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, scale: float, impl: str
) -> tuple[Tensor, Tensor]:
    """Compute the logprob and the entropy of each row."""
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        layer, counts = Layer(hidden, head, bias, scale), torch.ones_like(targets, dtype=torch.bool)
        nll, entropy, _ = chunked.cross_entropy(_epilogue(impl), layer, targets, counts, None, _NOTHING)
        return nll.neg_(), entropy


@token_logprobs.register_fake
def _(
    hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, scale: float, impl: str
) -> tuple[Tensor, Tensor]:
    rows = hidden.new_empty(targets.shape, dtype=torch.float32)
    return rows, torch.empty_like(rows)


@torch.library.custom_op(
    "refinerl::token_logprobs_backward",
    mutates_args=(),
    schema="(Tensor? grad_logprob, Tensor? grad_entropy, Tensor hidden, Tensor head, Tensor? bias, Tensor targets, "
    "float scale, str impl, bool[] wanted) -> (Tensor, Tensor, Tensor)",
)
def token_logprobs_backward(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    impl: str,
    wanted: Flags,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients in hidden, head and bias, empty if not wanted."""
    if head.dim() != 2:
        raise RuntimeError(
            f"head has shape {tuple(head.shape)} in the backward pass: it was released after the forward pass. Under "
            "ZeRO-3 read it in a module of DeepSpeed's engine"
        )
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        layer = Layer(hidden, head, bias, scale)
        zeros = torch.zeros(len(targets), dtype=torch.float32, device=targets.device)
        slopes = Slopes(zeros if grad_logprob is None else grad_logprob.neg(), grad_entropy)
        # Rows in which both slopes are zero cost nothing, such as those that PPO clips.
        counts = slopes.nll != 0 if grad_entropy is None else (slopes.nll != 0) | (grad_entropy != 0)
        *_, found = chunked.cross_entropy(_epilogue(impl), layer, targets, counts, slopes, Wanted(*wanted))
        return found.hidden, found.head, found.bias


@token_logprobs_backward.register_fake
def _(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    impl: str,
    wanted: Flags,
) -> Gradients:
    return _fake_gradients(hidden, head, bias, wanted)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, head, bias, targets, ctx.scale, ctx.impl = inputs
    ctx.save_for_backward(hidden, head, bias, targets)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    if grad_logprob is None and grad_entropy is None:
        return (None,) * 6
    found = token_logprobs_backward(grad_logprob, grad_entropy, *ctx.saved_tensors, ctx.scale, ctx.impl, wanted)
    return (*(g if wants else None for g, wants in zip(found, wanted, strict=True)), None, None, None)


token_logprobs.register_autograd(_differentiate, setup_context=_save_inputs)


def _fake_gradients(hidden: Tensor, head: Tensor, bias: Tensor | None, wanted: Flags) -> Gradients:
    of_hidden, of_head, of_bias = wanted
    return Gradients(
        torch.empty_like(hidden) if of_hidden else hidden.new_empty(0),
        head.new_empty(head.shape) if of_head else head.new_empty(0),
        bias.new_empty(bias.shape) if of_bias and bias is not None else hidden.new_empty(0, dtype=torch.float32),
    )

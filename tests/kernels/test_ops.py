"""The operators under what PyTorch does to them: opcheck, compiling, checkpoints, autocast, tied and frozen heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refinerl.kernels import chunked, ops
from refinerl.kernels.cross_entropy import Impl, sequence_cross_entropy, token_logprobs

IMPLS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def inputs(impl: str, n: int = 8, h: int = 5, v: int = 23, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Hidden, head, bias, targets, weights."""
    noise = torch.Generator().manual_seed(0)
    floats = [torch.randn(*shape, generator=noise).to(dtype) for shape in ((n, h), (v, h), (v,))]
    targets, weights = torch.randint(0, v, (n,), generator=noise), torch.rand(n, generator=noise)
    targets[3], weights[5] = -100, 0.0
    return [*(t.to(impl).requires_grad_() for t in floats), targets.to(impl), weights.to(impl)]


def gradients(loss: Tensor, of: list[Tensor], **options: bool) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of, **options))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_opcheck(impl: Impl, dtype: torch.dtype, bias: bool) -> None:
    hidden, head, offset, targets, weights = inputs(impl, dtype=dtype)
    offset = offset if bias else None
    wanted = [True, True, bias]
    torch.library.opcheck(ops.weighted_cross_entropy, (hidden, head, offset, targets, weights, 1.25, impl, wanted))
    frozen = (hidden, head.detach(), offset, targets, weights, 1.25, impl, [True, False, bias])
    torch.library.opcheck(ops.weighted_cross_entropy, frozen)
    torch.library.opcheck(ops.token_logprobs, (hidden, head, offset, targets, 1.25, impl))
    floats = (hidden.detach(), head.detach(), None if offset is None else offset.detach())
    slopes = weights - 0.5
    for of_logprob, of_entropy in ((slopes, slopes), (None, slopes), (slopes, None)):
        upstream: tuple[Any, ...] = (of_logprob, of_entropy, *floats, targets)
        torch.library.opcheck(ops.token_logprobs_backward, (*upstream, 1.25, impl, wanted))


def loss_of(hidden: Tensor, head: Tensor, bias: Tensor, targets: Tensor, weights: Tensor, impl: Impl) -> Tensor:
    hidden = torch.tanh(hidden)
    cost = sequence_cross_entropy(hidden, head, targets, weights=weights, bias=bias, temperature=0.8, impl=impl)
    logprobs, entropies = token_logprobs(hidden, head, targets, bias=bias, temperature=0.8, impl=impl)
    return cost.cost + (logprobs * logprobs.detach().exp() + 0.1 * entropies).sum() + cost.entropy.sum() * 0


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
def test_compiled_without_a_break(impl: Impl) -> None:
    tensors = inputs(impl)
    of = tensors[:3]
    expected = loss_of(*tensors, impl)
    compiled = torch.compile(loss_of, fullgraph=True)
    got = compiled(*tensors, impl)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(gradients(got, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(mine, theirs)
    again = inputs(impl, n=13)  # another number of rows
    torch.testing.assert_close(compiled(*again, impl), loss_of(*again, impl))
    with torch.no_grad():
        torch.testing.assert_close(compiled(*tensors, impl), expected.detach())


@pytest.mark.parametrize("impl", IMPLS)
def test_checkpointed(impl: Impl) -> None:
    tensors = inputs(impl)
    expected = gradients(loss_of(*tensors, impl), tensors[:3])
    got = gradients(checkpoint(loss_of, *tensors, impl, use_reentrant=False), tensors[:3])
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_does_not_reach_in(impl: Impl) -> None:
    hidden, head, bias, targets, weights = inputs(impl)
    plain = loss_of(hidden, head, bias, targets, weights, impl)
    expected = gradients(plain, [hidden, head, bias])
    with torch.autocast(hidden.device.type, dtype=torch.bfloat16):
        cast = loss_of(hidden, head, bias, targets, weights, impl)
        assert torch.equal(cast, plain)
        for mine, theirs in zip(gradients(cast, [hidden, head, bias]), expected, strict=True):
            assert torch.equal(mine, theirs)
        half = F.linear(hidden, torch.eye(5, device=hidden.device))
        assert half.dtype == torch.bfloat16
        assert token_logprobs(half, head, targets, impl=impl)[0].dtype == torch.float32


@pytest.mark.parametrize("impl", IMPLS)
def test_backward_twice_and_with_an_upstream_factor(impl: Impl) -> None:
    hidden, head, bias, targets, weights = inputs(impl)
    of = [hidden, head, bias]
    cost = sequence_cross_entropy(hidden, head, targets, weights=weights, bias=bias, impl=impl).cost
    once = gradients(cost, of, retain_graph=True)
    thrice = gradients(3.0 * cost, of, retain_graph=True)
    last = gradients(-0.5 * cost, of)
    for a, b, c in zip(once, thrice, last, strict=True):
        torch.testing.assert_close(b, 3.0 * a)
        torch.testing.assert_close(c, -0.5 * a)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_accumulate(impl: Impl) -> None:
    hidden, head, bias, targets, weights = inputs(impl)
    for _ in range(2):
        sequence_cross_entropy(hidden, head, targets, weights=weights, bias=bias, impl=impl).cost.backward()
    twice = head.grad.clone()
    head.grad = None
    sequence_cross_entropy(hidden, head, targets, weights=weights, bias=bias, impl=impl).cost.backward()
    torch.testing.assert_close(twice, 2 * head.grad)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("known", [True, False])
def test_frozen_parts(impl: Impl, known: bool) -> None:
    hidden, head, bias, targets, weights = inputs(impl)

    def loss(*of: Tensor) -> Tensor:
        if known:
            return sequence_cross_entropy(*of[:2], targets, weights=weights, bias=of[2], impl=impl).cost
        return (token_logprobs(*of[:2], targets, bias=of[2], impl=impl)[0] * weights).sum()

    everything = gradients(loss(hidden, head, bias), [hidden, head, bias])
    for i in range(3):
        alone = [t.detach().requires_grad_(i == j) for j, t in enumerate((hidden, head, bias))]
        (grad,) = gradients(loss(*alone), [alone[i]])
        torch.testing.assert_close(grad, everything[i])
    assert not loss(hidden.detach(), head.detach(), bias.detach()).requires_grad
    with torch.no_grad():
        assert not loss(hidden, head, bias).requires_grad


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("known", [True, False])
def test_tied_embeddings(impl: Impl, known: bool) -> None:
    _, head, _, targets, weights = inputs(impl)
    kept = targets >= 0

    def mine() -> Tensor:
        embedded = F.embedding(targets.clamp_min(0), head)
        if known:
            return sequence_cross_entropy(embedded, head, targets, weights=weights, impl=impl).cost
        return -(token_logprobs(embedded, head, targets, impl=impl)[0] * weights).sum()

    embedded = F.embedding(targets.clamp_min(0), head)
    nll = F.cross_entropy(embedded @ head.t(), targets, reduction="none", ignore_index=-100)
    torch.testing.assert_close(gradients(mine(), [head]), gradients((nll * weights)[kept].sum(), [head]))


@pytest.mark.parametrize("impl", IMPLS)
def test_a_cost_that_nobody_uses_has_no_gradient(impl: Impl) -> None:
    hidden, head, _, targets, _ = inputs(impl)
    logprobs, entropies = token_logprobs(hidden, head, targets, impl=impl)
    by_entropy = gradients(entropies.sum(), [hidden], retain_graph=True)[0]
    by_both = gradients((0 * logprobs + entropies).sum(), [hidden], retain_graph=True)[0]
    torch.testing.assert_close(by_entropy, by_both)
    assert gradients(logprobs.sum(), [hidden])[0].any()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_head_released_before_the_backward_pass_is_named(impl: Impl) -> None:
    hidden, head, _, targets, weights = inputs(impl)
    logprobs, _ = token_logprobs(hidden, head, targets, impl=impl)
    cost = sequence_cross_entropy(hidden, head, targets, weights=weights, impl=impl).cost
    expected = gradients(cost, [hidden], retain_graph=True)[0]
    whole, head.data = head.data, head.data.new_empty(0)  # as ZeRO-3 does to a parameter between the passes
    torch.testing.assert_close(gradients(cost, [hidden])[0], expected)
    with pytest.raises(RuntimeError, match=r"head has shape \(0,\) in the backward pass: it was released"):
        gradients(logprobs.sum(), [hidden], retain_graph=True)
    head.data = whole  # gathered again
    assert torch.isfinite(gradients(logprobs.sum(), [hidden])[0]).all()


def test_the_heads_gradient_is_handed_over_without_a_copy() -> None:
    hidden, head, _, targets, weights = inputs("cpu")
    cost = sequence_cross_entropy(hidden, head, targets, weights=weights, impl="cpu").cost
    saved = cost.grad_fn.saved_tensors[1].untyped_storage().data_ptr()
    cost.backward()
    assert head.grad.untyped_storage().data_ptr() == saved


def test_three_products_where_weights_are_known_and_four_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, _, targets, weights = inputs("cpu")
    made: list[torch.Size] = []
    multiply = chunked._multiply

    def counting(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
        made.append(out.shape)
        multiply(a, b, out, add=add)

    monkeypatch.setattr(chunked, "_multiply", counting)

    def products(loss: Callable[[], Tensor]) -> int:
        made.clear()
        value = loss()
        if value.requires_grad:
            value.backward()
        return len(made)

    def known() -> Tensor:
        return sequence_cross_entropy(hidden, head, targets, weights=weights, impl="cpu").cost

    def unknown() -> Tensor:
        return token_logprobs(hidden, head, targets, impl="cpu")[0].sum()

    assert (products(known), products(unknown)) == (3, 4)
    head.requires_grad_(False)
    assert (products(known), products(unknown)) == (2, 3)
    hidden.requires_grad_(False)
    assert (products(known), products(unknown)) == (1, 1)

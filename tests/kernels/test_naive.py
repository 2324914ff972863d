"""The naive twin against plain PyTorch in float64: values and gradients, chunked and not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refinerl.kernels import naive
from refinerl.kernels.cross_entropy import sequence_cross_entropy, token_logprobs


def inputs(n: int, h: int = 7, v: int = 31, *, bias: bool = False, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    noise = torch.Generator().manual_seed(n + v)
    hidden = torch.randn(n, h, generator=noise, dtype=torch.float64)
    head = torch.randn(v, h, generator=noise, dtype=torch.float64)
    targets = torch.randint(0, v, (n,), generator=noise)
    if n > 1:
        targets[0], targets[1] = 0, v - 1
    extra = [torch.randn(v, generator=noise, dtype=torch.float64)] if bias else []
    floats = [t.to(dtype).requires_grad_() for t in (hidden, head, *extra)]
    return [*floats[:2], targets, *floats[2:]]


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


@pytest.fixture(params=["one chunk", "chunks of 3 rows"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "one chunk":
        monkeypatch.setattr(naive, "WORKSPACE", 3 * 31 * 8)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_cost_and_gradients_are_plain_cross_entropy(n: int, temperature: float, bias: bool) -> None:
    hidden, head, targets, *extra = inputs(n, bias=bias)
    leaves = [hidden, head, *extra]
    weights = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights[::3] = 0.0
    got = sequence_cross_entropy(
        hidden, head, targets, weights=weights, temperature=temperature, bias=extra[0] if extra else None
    )
    logits = F.linear(hidden, head, extra[0] if extra else None) / temperature
    nll = F.cross_entropy(logits, targets, reduction="none")
    kept = weights != 0
    torch.testing.assert_close(got.nll[kept], nll[kept].detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(got.cost, (weights * nll).sum(), atol=1e-10, rtol=0)
    assert not got.nll[~kept].any()
    assert not got.nll.requires_grad
    grads = gradients(got.cost, leaves)
    assert not grads[0][~kept].any()
    for mine, theirs in zip(grads, gradients((weights * nll).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_logprobs_and_entropies_with_any_upstream_gradient(n: int, temperature: float) -> None:
    hidden, head, targets, bias = inputs(n, bias=True)
    leaves = [hidden, head, bias]
    logprobs, entropies = token_logprobs(hidden, head, targets, temperature=temperature, bias=bias)
    log_pi = (F.linear(hidden, head, bias) / temperature).log_softmax(-1)
    expected_entropies = -(log_pi.exp() * log_pi).sum(-1)
    expected = log_pi.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(entropies, expected_entropies, atol=1e-10, rtol=0)
    a, b = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mine = gradients((a * logprobs).sum() + (b * entropies).sum(), leaves)
    theirs = gradients((a * expected).sum() + (b * expected_entropies).sum(), leaves)
    for x, y in zip(mine, theirs, strict=True):
        torch.testing.assert_close(x, y, atol=1e-10, rtol=0)


def test_weights_default_to_one_and_all_zero_costs_nothing() -> None:
    hidden, head, targets = inputs(6)
    expected = F.cross_entropy(hidden @ head.T, targets, reduction="sum")
    torch.testing.assert_close(sequence_cross_entropy(hidden, head, targets).cost, expected)
    nothing = sequence_cross_entropy(hidden, head, targets, weights=torch.zeros(6))
    assert nothing.cost.item() == 0.0
    assert not any(g.any() for g in gradients(nothing.cost, [hidden, head]))


def test_frozen_head_and_tied_use() -> None:
    hidden, head, targets = inputs(6)
    frozen = head.detach()
    (grad,) = torch.autograd.grad(sequence_cross_entropy(hidden, frozen, targets).cost, [hidden])
    (expected,) = torch.autograd.grad(F.cross_entropy(hidden @ frozen.T, targets, reduction="sum"), [hidden])
    torch.testing.assert_close(grad, expected, atol=1e-10, rtol=0)
    embedded = head[targets]  # hidden comes out of the head itself, as with tied embeddings
    (grad,) = torch.autograd.grad(token_logprobs(embedded, head, targets)[0].sum(), [head])
    embedded = head[targets]
    (expected,) = torch.autograd.grad(-F.cross_entropy(embedded @ head.T, targets, reduction="sum"), [head])
    torch.testing.assert_close(grad, expected, atol=1e-10, rtol=0)


def test_bfloat16_is_computed_in_float32() -> None:
    hidden, head, targets = inputs(50, h=64, v=301, dtype=torch.bfloat16)
    got = sequence_cross_entropy(hidden, head, targets, impl="torch")
    exact = F.cross_entropy(hidden.double() @ head.double().T, targets, reduction="none")
    assert got.nll.dtype == torch.float32
    assert (got.nll - exact).abs().max() < 1e-5 * exact.abs().max()
    grads = gradients(got.cost, [hidden, head])
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.bfloat16]


def test_autocast_does_not_reach_in() -> None:
    hidden, head, targets = inputs(5, dtype=torch.float32)
    plain = token_logprobs(hidden, head, targets, impl="torch")[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(token_logprobs(hidden, head, targets, impl="torch")[0], plain)


def test_impossible_tokens_leave_everything_finite() -> None:
    hidden, head, targets, bias = inputs(4, bias=True)
    with torch.no_grad():
        bias[5] = -torch.inf
    targets = targets.clamp(6, None)
    logprobs, entropies = token_logprobs(hidden, head, targets, bias=bias)
    grads = gradients(logprobs.sum() + entropies.sum(), [hidden, head])
    assert all(torch.isfinite(t).all() for t in (logprobs, entropies, *grads))
    others = [i for i in range(31) if i != 5]
    log_pi = (hidden @ head[others].T + bias[others]).log_softmax(-1)
    torch.testing.assert_close(entropies, -(log_pi.exp() * log_pi).sum(-1))


def test_no_graph_without_gradients() -> None:
    hidden, head, targets = inputs(5)
    with torch.no_grad():
        assert not token_logprobs(hidden, head, targets)[0].requires_grad


def test_gradients_are_those_of_finite_differences() -> None:
    hidden, head, targets, bias = inputs(4, v=9, bias=True)
    targets = targets.clone()
    targets[2] = -100

    def both(hidden: Tensor, head: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(hidden, head, targets, bias=bias, temperature=0.8)

    assert torch.autograd.gradcheck(both, (hidden, head, bias))


def test_ignored_rows_read_zero_and_have_no_gradient() -> None:
    hidden, head, targets = inputs(5)
    targets = targets.clone()
    targets[[0, 3]] = -100
    kept = torch.tensor([1, 2, 4])
    logprobs, entropies = token_logprobs(hidden, head, targets)
    expected = token_logprobs(hidden[kept], head, targets[kept])
    for mine, theirs in zip((logprobs, entropies), expected, strict=True):
        torch.testing.assert_close(mine[kept], theirs)
        assert not mine[[0, 3]].any()
    assert not gradients(logprobs.sum(), [hidden])[0][[0, 3]].any()
    torch.testing.assert_close(sequence_cross_entropy(hidden, head, targets).cost, -expected[0].sum())

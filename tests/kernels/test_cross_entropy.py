"""The native kernels against float64 beside the naive computation in their own precision; and the errors of the door.

What is asked of each value and gradient: the largest error is at most twice the naive one plus 1e-6 of the largest
value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refinerl.kernels import chunked
from refinerl.kernels.cross_entropy import Impl, sequence_cross_entropy, token_logprobs

NATIVE = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Case(NamedTuple):
    hidden: Tensor
    head: Tensor
    bias: Tensor | None
    targets: Tensor
    weights: Tensor
    temperature: float = 1.0


def case(
    n: int,
    v: int,
    h: int = 24,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    spread: float = 1.0,
    temperature: float = 1.0,
) -> Case:
    noise = torch.Generator().manual_seed(n + v)
    hidden = (spread * torch.randn(n, h, generator=noise)).to(dtype)
    head = torch.randn(v, h, generator=noise).to(dtype)
    targets = torch.randint(0, v, (n,), generator=noise)
    targets[:1], targets[1:2] = 0, v - 1
    weights = torch.rand(n, generator=noise) - 0.3
    weights[2::5] = 0.0
    return Case(hidden, head, torch.randn(v, generator=noise) if bias else None, targets, weights, temperature)


def plain(c: Case, kind: torch.dtype, products: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Nll and entropy with PyTorch's own operators, computed in this type; the product may be of another."""
    logits = F.linear(c.hidden.to(products or kind), c.head.to(products or kind)).to(kind)
    log_pi = ((logits if c.bias is None else logits + c.bias.to(kind)) / c.temperature).log_softmax(-1)
    nll = F.nll_loss(log_pi, c.targets, reduction="none")
    return nll, -(log_pi.exp() * log_pi.masked_fill(log_pi == -torch.inf, 0.0)).sum(-1)


def leaves(c: Case, dtype: torch.dtype | None = None, device: str = "cpu") -> tuple[Case, list[Tensor]]:
    """The case with tensors that ask for gradients, in another type if one is given."""
    floats = [
        None if t is None else t.to(device, dtype or t.dtype).requires_grad_() for t in (c.hidden, c.head, c.bias)
    ]
    moved = Case(floats[0], floats[1], floats[2], c.targets.to(device), c.weights.to(device), c.temperature)
    return moved, [t for t in floats if t is not None]


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True))


def hold(name: str, mine: Tensor, naive: Tensor, exact: Tensor) -> None:
    mine, naive = mine.cpu().double(), naive.double()
    if not exact.numel():
        assert mine.shape == exact.shape
        return
    allowed = 2 * (naive - exact).abs().max() + 1e-6 * exact.abs().max()
    assert (mine - exact).abs().max() <= allowed, (name, (mine - exact).abs().max(), (naive - exact).abs().max())


def check(c: Case, impl: Impl, products: torch.dtype = torch.float32) -> None:
    exact, exact_leaves = leaves(c, torch.float64)
    rough, rough_leaves = leaves(c)
    mine, my_leaves = leaves(c, device=impl)
    arguments = {"temperature": c.temperature, "bias": mine.bias, "impl": impl}
    names = ("hidden", "head", "bias")

    true, near = plain(exact, torch.float64), plain(rough, torch.float32, products)
    kept = c.weights != 0
    got = sequence_cross_entropy(mine.hidden, mine.head, mine.targets, weights=mine.weights, **arguments)
    hold("nll", got.nll[kept], near[0][kept].detach(), true[0][kept].detach())
    hold("entropy", got.entropy[kept], near[1][kept].detach(), true[1][kept].detach())
    assert not got.nll[~kept].any()
    assert not got.entropy[~kept].any()
    costs = [(x[0] * c.weights)[kept].sum() for x in (true, near)]
    hold("cost", got.cost.detach(), costs[1].detach(), costs[0].detach())
    triples = (
        gradients(got.cost, my_leaves),
        gradients(costs[1], rough_leaves),
        gradients(costs[0], exact_leaves),
    )
    for name, *grads in zip(names, *triples, strict=False):
        hold(f"cost by {name}", *grads)

    upstream = torch.randn(2, len(c.targets), generator=torch.Generator().manual_seed(0))
    upstream[:, 1::4] = 0.0
    for entropies in (False, True):
        true, near = plain(exact, torch.float64), plain(rough, torch.float32, products)
        logprobs, entropy = token_logprobs(mine.hidden, mine.head, mine.targets, **arguments)
        hold("logprobs", -logprobs.detach(), near[0].detach(), true[0].detach())
        hold("entropies", entropy.detach(), near[1].detach(), true[1].detach())
        pairs = ((-logprobs, entropy), near, true)
        losses = [
            (a * upstream[0].to(a.device)).sum() + entropies * (b * upstream[1].to(b.device)).sum() for a, b in pairs
        ]
        triples = [
            gradients(loss, of) for loss, of in zip(losses, (my_leaves, rough_leaves, exact_leaves), strict=True)
        ]
        for name, *grads in zip(names, *triples, strict=False):
            hold(f"logprobs by {name}, entropies {entropies}", *grads)


@pytest.fixture(params=["one chunk", "chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "chunks":
        for device in chunked.WORKSPACE:
            monkeypatch.setitem(chunked.WORKSPACE, device, 3 * 4 * 1000)
        monkeypatch.setattr(chunked, "CONVERTED", 10 * 4 * 24)
    return str(request.param)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("impl", NATIVE)
@pytest.mark.parametrize("v", [1, 2, 7, 31, 33, 1000])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_shapes(impl: Impl, n: int, v: int) -> None:
    check(case(n, v), impl)
    check(case(n, v, bias=False, temperature=0.6), impl)


@pytest.mark.parametrize("impl", NATIVE)
def test_a_real_vocabulary(impl: Impl) -> None:
    check(case(12, 50257, 16, spread=2.0), impl)


@pytest.mark.parametrize("impl", NATIVE)
def test_many_rows(impl: Impl) -> None:
    check(case(10_000, 97, 8), impl)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("impl", NATIVE)
def test_logits_of_ten_thousand(impl: Impl) -> None:
    check(case(9, 501, spread=2500.0, temperature=1.3), impl)
    # Products that are exact in float32, so that the naive computation is too.
    c = case(8, 400, 4, bias=False)
    signs = torch.randn(400, 4, generator=torch.Generator().manual_seed(3)).sign()
    check(c._replace(hidden=torch.eye(4).repeat(2, 1) * 10_000.5, head=signs), impl)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("impl", NATIVE)
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_certain_targets(impl: Impl, size: float) -> None:
    c = case(6, 300, 6, bias=False)
    hidden, head = torch.eye(6) * size, torch.zeros(300, 6)
    head[torch.arange(6) * 50, torch.arange(6)] = 1.0
    targets = torch.arange(6) * 50
    targets[5] = 7  # and one that is certainly missed
    check(c._replace(hidden=hidden, head=head, targets=targets), impl)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("impl", NATIVE)
def test_impossible_tokens(impl: Impl) -> None:
    c = case(10, 1000)
    assert c.bias is not None
    c.bias[3:700] = -torch.inf
    check(c._replace(targets=c.targets.clamp(700, None)), impl)
    mine, _ = leaves(c, device=impl)
    missed = sequence_cross_entropy(mine.hidden, mine.head, mine.targets.clamp(3, 600), bias=mine.bias, impl=impl)
    assert missed.nll.eq(torch.inf).all()
    assert torch.isfinite(missed.entropy).all()


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("impl", NATIVE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_summed_in_float32(impl: Impl, dtype: torch.dtype) -> None:
    c = case(40, 1000, 64, dtype=dtype)
    # The naive computation converts to float32 too, and only gradients are rounded; but a GPU multiplies bfloat16.
    check(c, impl, torch.bfloat16 if impl == "cuda" and dtype == torch.bfloat16 else torch.float32)
    mine, of = leaves(c, device=impl)
    got = sequence_cross_entropy(mine.hidden, mine.head, mine.targets, bias=mine.bias, impl=impl)
    assert got.nll.dtype == got.cost.dtype == torch.float32
    assert [g.dtype for g in gradients(got.cost, of)] == [dtype, dtype, torch.float32]


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("shape", [(40, 1000, 64), (12, 50_257, 16), (500, 300, 32)])
def test_products_of_bfloat16_as_a_gpu_makes_them(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    """Float32 logits, whose gradients are rounded to bfloat16; a stand-in for `mm` with `out_dtype` multiplies."""

    def multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
        assert (a.dtype, b.dtype, out.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        out.copy_(a.float() @ b.float() + (out if add else 0.0))

    monkeypatch.setattr(chunked, "_multiplies", lambda hidden, head: True)
    monkeypatch.setattr(chunked, "_multiply", multiply)
    check(case(*shape, dtype=torch.bfloat16), "cpu", torch.bfloat16)


@pytest.mark.parametrize("impl", NATIVE)
def test_mixed_floats_and_strides(impl: Impl) -> None:
    c = case(30, 333)
    assert c.bias is not None
    mine, _ = leaves(c, device=impl)
    given = {"weights": mine.weights, "bias": mine.bias, "impl": impl}
    expected = sequence_cross_entropy(mine.hidden, mine.head, mine.targets, **given)
    strided = Case(
        c.hidden.t().contiguous().t(),
        torch.stack([c.head, c.head], -1)[..., 0],
        torch.stack([c.bias, c.bias], -1)[:, 1],
        torch.stack([c.targets, c.targets], -1)[:, 0],
        torch.stack([c.weights, c.weights], -1)[:, 0],
    )
    check(strided, impl)
    got = sequence_cross_entropy(
        strided.hidden.to(impl),
        strided.head.to(impl, torch.bfloat16),
        strided.targets.to(impl),
        weights=strided.weights.to(impl, torch.float64),
        bias=strided.bias.to(impl, torch.float16),
        impl=impl,
    )
    assert got.nll.sub(expected.nll).abs().max() < 0.1


@pytest.mark.parametrize("impl", NATIVE)
def test_nothing_kept_costs_nothing(impl: Impl) -> None:
    c, of = leaves(case(6, 50), device=impl)
    for targets, weights in ((c.targets, torch.zeros_like(c.weights)), (torch.full_like(c.targets, -100), None)):
        got = sequence_cross_entropy(c.hidden, c.head, targets, weights=weights, bias=c.bias, impl=impl)
        assert got.cost.item() == 0.0
        assert not got.nll.any()
        assert not any(g.any() for g in gradients(got.cost, of))
    logprobs, entropies = token_logprobs(c.hidden, c.head, torch.full_like(c.targets, -100), bias=c.bias, impl=impl)
    assert not logprobs.any()
    assert not any(g.any() for g in gradients(logprobs.sum() + entropies.sum(), of))


@pytest.mark.parametrize("impl", NATIVE)
def test_ignored_rows_are_rows_of_weight_zero(impl: Impl) -> None:
    c, of = leaves(case(20, 80), device=impl)
    ignored = c.targets.clone()
    ignored[::3] = -100
    got = sequence_cross_entropy(c.hidden, c.head, ignored, bias=c.bias, impl=impl)
    expected = sequence_cross_entropy(
        c.hidden, c.head, c.targets, weights=(ignored >= 0).float(), bias=c.bias, impl=impl
    )
    assert torch.equal(got.nll, expected.nll)
    assert torch.equal(got.cost, expected.cost)
    for mine, theirs in zip(gradients(got.cost, of), gradients(expected.cost, of), strict=True):
        assert torch.equal(mine, theirs)
    logprobs, _ = token_logprobs(c.hidden, c.head, ignored, bias=c.bias, impl=impl)
    torch.testing.assert_close(logprobs, -got.nll)


def test_auto_runs_the_native_kernel_and_the_twin_for_float64() -> None:
    c = case(5, 40)
    mine = token_logprobs(*c[:2], c.targets)[0]
    assert torch.equal(mine, token_logprobs(*c[:2], c.targets, impl="cpu")[0])
    assert token_logprobs(c.hidden.double(), c.head.double(), c.targets)[0].dtype == torch.float64


def test_what_is_no_distribution_is_nan() -> None:
    c = case(4, 40)
    for bad in (torch.nan, torch.inf):
        hidden = c.hidden.clone()
        hidden[1, 3] = bad
        nll = sequence_cross_entropy(hidden, c.head, c.targets).nll
        assert nll.isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("impl", ["auto", "torch", "cpu"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(hidden=torch.zeros(4)), r"hidden must be floats of shape \(N, H ≥ 1\)"),
        (
            lambda a: a.update(hidden=torch.zeros(4, 0)),
            r"hidden must be floats .*, got torch.float32 of shape \(4, 0\)",
        ),
        (
            lambda a: a.update(hidden=torch.zeros(4, 7).long()),
            r"hidden must be floats of shape \(N, H ≥ 1\), got torch.int64",
        ),
        (lambda a: a.update(head=torch.zeros(31, 8)), r"head must be floats of shape \(V, 7\), got .*\(31, 8\)"),
        (lambda a: a.update(head=torch.zeros(0, 7)), r"head must be floats of shape \(V, 7\)"),
        (
            lambda a: a.update(head=torch.zeros(31, 7).double()),
            "head must be floats that go with hidden's torch.float32",
        ),
        (lambda a: a.update(head=torch.zeros(31, 7, device="meta")), "head must be on hidden's device cpu, got meta"),
        (lambda a: a.update(targets=torch.zeros(5, dtype=torch.int64)), r"targets must be of shape \(4,\), got \(5,\)"),
        (lambda a: a.update(targets=torch.zeros(4)), "targets must be int64"),
        (lambda a: a.update(targets=torch.tensor([0, 1, 2, 31])), r"targets must be in \[0, 31\) or -100, got 31"),
        (lambda a: a.update(targets=torch.tensor([0, 1, -1, 3])), r"targets must be in \[0, 31\) or -100, got -1"),
        (
            lambda a: a.update(targets=torch.zeros(4, dtype=torch.int64, device="meta")),
            "targets must be on hidden's dev",
        ),
        (lambda a: a.update(weights=torch.ones(3)), r"weights must be of shape \(4,\), got \(3,\)"),
        (lambda a: a.update(weights=torch.ones(4, device="meta")), "weights must be on hidden's device cpu, got meta"),
        (lambda a: a.update(weights=torch.ones(4).cfloat()), "weights must be real, got torch.complex64"),
        (lambda a: a.update(bias=torch.ones(30)), r"bias must be of shape \(31,\), got \(30,\)"),
        (lambda a: a.update(bias=torch.ones(31).long()), "bias must be floats that go with hidden's"),
        (lambda a: a.update(temperature=0.0), "temperature must be finite and > 0, got 0.0"),
        (lambda a: a.update(temperature=float("nan")), "temperature must be finite and > 0, got nan"),
        (lambda a: a.update(impl="cuda"), "impl must suit hidden's device cpu, got 'cuda'"),
        (lambda a: a.update(impl="fast"), "impl must be one of auto, torch, cpu, cuda, got 'fast'"),
    ],
)
def test_errors_name_the_argument(change: Callable[[dict[str, object]], None], message: str, impl: str) -> None:
    c = case(4, 31, 7)
    arguments: dict[str, object] = {"hidden": c.hidden, "head": c.head, "targets": c.targets, "impl": impl}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        sequence_cross_entropy(**arguments)
    if "weights" not in arguments:
        with pytest.raises(ValueError, match=message):
            token_logprobs(**arguments)


def test_float64_is_not_computed_in_float32_silently() -> None:
    c = case(4, 31, 7)
    with pytest.raises(ValueError, match="impl must be 'torch' for float64, got 'cpu'"):
        token_logprobs(c.hidden.double(), c.head.double(), c.targets, impl="cpu")

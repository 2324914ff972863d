"""What only a device has: streams, threads, graphs, several of them, and more memory than 32 bits can index."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from refinerl.kernels import chunked, cuda
from refinerl.kernels.cross_entropy import sequence_cross_entropy, token_logprobs

pytestmark = pytest.mark.gpu

VOCABULARY = 151_936


def problem(rows: int = 200, device: str = "cuda") -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head of 5001 words and targets."""
    noise = torch.Generator().manual_seed(4)
    hidden, head = torch.randn(rows, 64, generator=noise), torch.randn(5001, 64, generator=noise) / 8
    targets = torch.randint(0, 5001, (rows,), generator=noise)
    return hidden.to(device).requires_grad_(), head.to(device).requires_grad_(), targets.to(device)


def gradients(hidden: Tensor, head: Tensor, targets: Tensor) -> Sequence[Tensor]:
    logprobs, entropies = token_logprobs(hidden, head, targets, impl="cuda")
    return torch.autograd.grad((logprobs + 0.1 * entropies).sum(), [hidden, head])


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The device and the stream of every launch from here on."""
    seen: list[tuple[int, int]] = []
    place = cuda._place

    def noting(tensor: Tensor) -> object:
        seen.append((tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream))
        return place(tensor)

    monkeypatch.setattr(cuda, "_place", noting)
    return seen


def test_forward_and_backward_launch_on_the_stream_of_the_forward_pass(streams: list[tuple[int, int]]) -> None:
    """The backward pass runs in a thread of autograd's, which has a current stream of its own."""
    hidden, head, targets = problem()
    wanted = gradients(hidden, head, targets)
    torch.cuda.synchronize()
    streams.clear()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        logprobs, entropies = token_logprobs(hidden, head, targets, impl="cuda")
        loss = (logprobs + 0.1 * entropies).sum()
    forward = len(streams)
    found = torch.autograd.grad(loss, [hidden, head])
    torch.cuda.synchronize()
    assert len(streams) > forward > 0
    assert set(streams) == {(0, stream.cuda_stream)}
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_kernels_wait_for_what_their_stream_does_before_them() -> None:
    values = torch.randn(64, VOCABULARY, device="cuda")
    targets = torch.randint(0, VOCABULARY, (64,), device="cuda")
    wanted = cuda.Epilogue().statistics(values, targets, 1.0)
    late = torch.zeros_like(values)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(values)
        found = cuda.Epilogue().statistics(late, targets, 1.0)
    torch.cuda.synchronize()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))


def test_every_kernel_can_be_captured_in_a_graph() -> None:
    assert cuda.why_not(0) == ""
    epilogue = cuda.Epilogue()
    logits = torch.randn(32, 5001, device="cuda")
    targets = torch.randint(0, 5001, (32,), device="cuda")
    weights = torch.rand(32, device="cuda")

    def every(logits: Tensor) -> list[Tensor]:
        nll, entropy = epilogue.statistics(logits, targets, 1.25)
        indices, count = cuda.kept_rows(weights)
        return [nll, entropy, indices, count, *epilogue.fused(logits, targets, weights, None, 1.25)]

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = every(logits)
    for _ in range(2):
        logits.normal_()
        plain = logits.clone()
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(captured, every(plain), strict=True))
        assert torch.equal(logits, plain)


def test_more_logits_than_32_bits_can_index() -> None:
    rows = 2**31 // VOCABULARY + 8
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB")
    logits = torch.empty(rows, VOCABULARY, dtype=torch.bfloat16, device="cuda").normal_()
    targets = torch.randint(0, VOCABULARY, (rows,), device="cuda")
    some = torch.tensor([0, rows // 2, rows - 1], device="cuda")
    before = logits[some].double()
    nll, entropy = cuda.Epilogue().statistics(logits, targets, 1.0)
    log_p = before.log_softmax(-1)
    torch.testing.assert_close(nll[some].double(), -log_p.gather(1, targets[some, None])[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy[some].double(), -(log_p.exp() * log_p).sum(-1), rtol=1e-5, atol=1e-5)
    cuda.Epilogue().fused(logits, targets, torch.ones(rows, device="cuda"), None, 1.0)
    wanted = log_p.exp()
    wanted[torch.arange(3, device="cuda"), targets[some]] -= 1.0
    torch.testing.assert_close(logits[some].double(), wanted, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("add", [False, True])
def test_products_of_bfloat16_are_summed_and_kept_in_float32(add: bool) -> None:
    """As the chunks multiply them: the head transposed, and the gradient's transposed slices.

    Sums of bfloat16 would be off by a half here; those of tensor cores are cut off, not rounded, in their last bits.
    """
    noise = torch.Generator("cuda").manual_seed(6)
    hidden = torch.randn(300, 64, generator=noise, device="cuda").bfloat16()
    head = torch.randn(5001, 64, generator=noise, device="cuda").bfloat16()
    slopes = torch.randn(300, 5001, generator=noise, device="cuda").bfloat16()
    if not chunked._multiplies(hidden, head):
        pytest.skip("this PyTorch cannot add such a product to float32")
    for a, b in ((hidden, head.t()), (slopes, head), (slopes.t(), hidden), (slopes[:, :1000].t(), hidden)):
        out = torch.randn(len(a), b.shape[1], generator=noise, device="cuda")
        exact = a.double() @ b.double() + (out.double() if add else 0.0)
        chunked._multiply(a, b, out, add=add)
        torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=2e-2)


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    there = problem(device="cuda:1")
    found, wanted = gradients(*there), gradients(*problem())
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.device == torch.device("cuda", 1)
        torch.testing.assert_close(mine.cpu(), theirs.cpu())
    assert torch.cuda.current_device() == 0


def test_the_same_cost_and_gradients_in_every_call() -> None:
    """Nothing is summed by atomics."""
    hidden, head, targets = problem(3000)

    def once() -> list[Tensor]:
        cost = sequence_cross_entropy(hidden, head, targets, impl="cuda").cost
        return [cost.detach(), *torch.autograd.grad(cost, [hidden, head])]

    first = once()
    assert all(torch.equal(a, b) for _ in range(3) for a, b in zip(first, once(), strict=True))

"""The CUDA epilogue: on a GPU where there is one; its refusals and what it says of this machine everywhere.

`test_cuda_driver.py` runs it on a stand-in for the driver, `test_cuda_emulator.py` its kernels alone.
"""

from __future__ import annotations

import pytest
import torch

from emulation import CUDA
from epilogues import Case, cases, check
from refinerl.kernels import cuda
from refinerl.kernels.cross_entropy import sequence_cross_entropy

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

core = pytest.importorskip("refinerl._core", reason="refinerl._core is not built")
BUILT = pytest.mark.skipif(not core.cuda_architectures(), reason="built without the CUDA compiler")


# --- on a device -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_case_on_the_device(dtype: torch.dtype) -> None:
    assert cuda.availability().usable
    assert cuda.why_not(0) == ""
    for case in cases(dtype):
        check(cuda.Epilogue(), case.to("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("length", [49152, 151936])
def test_vocabularies_of_real_models_on_the_device(length: int) -> None:
    noise = torch.Generator("cuda").manual_seed(1)
    for dtype in DTYPES:
        logits = (torch.randn(64, length, generator=noise, device="cuda") * 4).to(dtype)
        targets = torch.randint(0, length, (64,), generator=noise, device="cuda")
        targets[0], targets[1] = 0, length - 1

        check(cuda.Epilogue(), Case(f"{length}, {dtype}", logits, targets, 1 / 0.8))


@pytest.mark.gpu
def test_launches_go_on_the_current_stream_and_allocate_results_only() -> None:
    logits = torch.randn(512, 50_257, device="cuda")
    targets = torch.randint(0, 50_257, (512,), device="cuda")
    weights = torch.rand(512, device="cuda")
    cuda.Epilogue().fused(logits.clone(), targets, weights, None, 1.0)
    torch.cuda.synchronize()
    wanted = logits.clone()
    expected = cuda.Epilogue().fused(wanted, targets, weights, None, 1.0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # the kernel must stay behind it, and the host must not
        got = cuda.Epilogue().fused(logits, targets, weights, None, 1.0)
        waited = stream.query()
    assert not waited
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 64 * 1024
    assert torch.equal(logits, wanted)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, expected, strict=True))


@pytest.mark.gpu
def test_kept_rows_on_the_device() -> None:
    weights = (torch.rand(10_000, device="cuda") < 0.3) * torch.rand(10_000, device="cuda")
    indices, count = cuda.kept_rows(weights)
    assert torch.equal(indices[: int(count)], weights.nonzero().squeeze(-1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_door_on_the_device_agrees_with_its_twin(dtype: torch.dtype) -> None:
    noise = torch.Generator("cuda").manual_seed(2)
    hidden = torch.randn(300, 64, generator=noise, device="cuda").to(dtype).requires_grad_()
    head = (torch.randn(5001, 64, generator=noise, device="cuda") / 8).to(dtype).requires_grad_()
    targets = torch.randint(0, 5001, (300,), generator=noise, device="cuda")
    weights = torch.rand(300, generator=noise, device="cuda") * (torch.arange(300, device="cuda") % 3 == 0)
    ours = sequence_cross_entropy(hidden, head, targets, weights=weights, temperature=0.8, impl="cuda")
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    exact = sequence_cross_entropy(*wide, targets, weights=weights.double(), temperature=0.8, impl="torch")
    step = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(ours.nll.double(), exact.nll, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.cost.double(), exact.cost, rtol=1e-4, atol=1e-4)
    gradients = zip(torch.autograd.grad(ours.cost, [hidden, head]), torch.autograd.grad(exact.cost, wide), strict=True)
    for mine, theirs in gradients:
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=step * theirs.abs().max().item())


def test_availability_on_this_machine_has_a_reason_or_none() -> None:
    found = cuda.availability()
    assert found.usable == (found.reason == "")
    assert found.usable or not torch.cuda.is_available()
    assert list(found.architectures) == core.cuda_architectures()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "logits", "targets"),
    [
        ("logits", torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)),
        ("logits", torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        ("logits", torch.zeros(4, 3).T, torch.zeros(3, dtype=torch.int64)),
        ("targets", torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64)),
        ("targets", torch.zeros(3, 4), torch.zeros(3, dtype=torch.int32)),
        ("targets", torch.zeros(3, 4), torch.zeros(6, dtype=torch.int64)[::2]),
    ],
)
def test_wrong_tensors_are_named(name: str, logits: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be|^{name} must have"):
        cuda.Epilogue().statistics(logits, targets, 1.0)


def test_numbers_for_each_row_are_checked() -> None:
    logits, targets, right, wrong = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(3), torch.zeros(4)
    with pytest.raises(ValueError, match=r"^grad_nll must be of shape \(3,\)"):
        cuda.Epilogue().fused(logits, targets, wrong, None, 1.0)
    with pytest.raises(ValueError, match=r"^grad_entropy must be of shape \(3,\)"):
        cuda.Epilogue().fused(logits, targets, right, wrong, 1.0)


@BUILT
def test_the_core_refuses_what_no_kernel_takes() -> None:
    logits = {"item": "float32", "address": 0, "rows": 1, "stride": 1, "length": 1, "targets": 0, "scale": 1.0}
    with pytest.raises(ValueError, match="float32, float16 or bfloat16, got float64"):
        core.CudaLogits(**logits | {"item": "float64"})
    place, empty = core.CudaPlace(device=0, stream=0), core.CudaLogits(**logits | {"length": 0})
    with pytest.raises(ValueError, match=r"rows of 1 to 2\*\*31 - 2\*\*16 items, got 0"):
        core.cuda_statistics(place, empty, nll=0, entropy=0)


def test_launch_shapes_are_those_that_the_kernels_declare() -> None:
    header = (CUDA / "sequence_cross_entropy.cuh").read_text()
    launcher = (CUDA.parent / "rust/refinerl-kernels/src/cuda/epilogue.rs").read_text()
    for name, threads in (("STREAMING", 512), ("RESIDENT", 1024)):
        assert f"constexpr int {name} = {threads};" in header
        assert f"const {name}: u32 = {threads};" in launcher

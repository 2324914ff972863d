"""The switch for float32 products; what it does to them shows only on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
import torch
from rich.console import Console

from refinerl.engines.precision import multiply_float32
from refinerl.run import recipe, wiring
from tiny import write_tiny


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("device", "tf32", "precision"), [("cuda:0", True, "high"), ("cuda", False, "highest"), ("cpu", True, "highest")]
)
def test_tf32_is_a_matter_of_gpus(device: str, tf32: bool, precision: str) -> None:
    multiply_float32(device, tf32=tf32)
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("tf32", [True, False])
def test_a_run_sets_it_after_its_engines_are_made(monkeypatch, tmp_path, tf32: bool) -> None:
    """As vLLM's engine sets it too."""
    events: list[object] = []
    make = wiring.make_generators
    monkeypatch.setattr(wiring, "make_generators", lambda *a: events.append("engines") or make(*a))
    monkeypatch.setattr(wiring, "multiply_float32", lambda device, *, tf32: events.append((device, tf32)))
    folder = write_tiny(tmp_path / "model")
    config = recipe.load("smollm", [f"model={folder}", "device=cpu", f"engines.tf32={str(tf32).lower()}"])
    with wiring.wire(config, tmp_path, Console(file=StringIO())):
        assert events == ["engines", ("cpu", tf32)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_factors_are_rounded_and_sums_are_not() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    a, b = (torch.randn(512, 512, device="cuda", generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    errors = {}
    for tf32 in (True, False):
        multiply_float32("cuda", tf32=tf32)
        errors[tf32] = float(((a @ b).double() - exact).norm() / exact.norm())
    assert errors[False] < 1e-6 < errors[True] < 1e-3

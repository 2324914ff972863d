"""The bytes that a trainer takes on a device that is not the CPU: between steps, with a gradient, while it resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretend_device
import refinerl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretend_device.compiler() is None, reason="no C++ compiler for the pretend device"),
]

SCRIPT = """
import gc, json, sys
from pathlib import Path
import torch
import pretend_device
pretend_device.load()
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.torch import TorchTrainer
from tiny import halved, make_rows, tiny_model

rows = make_rows([(5, 6, 7)], [(20, 21)])
folder = Path(sys.argv[1])
found = {}
for dtype in ("float32", "bfloat16"):
    def new():
        model = tiny_model(tied=False, hidden=64, layers=4)
        model = (halved(model) if dtype == "bfloat16" else model).to("pretend")
        return TorchTrainer(PolicyNetwork(model), Optimization(1e-3)), model.num_parameters()

    def backward(trainer):
        trainer.backward(trainer.forward(rows).logprobs.sum())

    start = torch.pretend.memory_allocated()
    def held():
        gc.collect()
        return (torch.pretend.memory_allocated() - start) / count

    trainer, count = new()
    backward(trainer)
    trainer.step()
    between = held()
    backward(trainer)
    gradient = held()
    trainer.save(folder)
    del trainer
    trainer, _ = new()
    fresh = held()
    torch.pretend.reset_peak_memory_stats()
    trainer.load(folder)
    peak = (torch.pretend.max_memory_allocated() - start) / count
    found[dtype] = {"between": between, "gradient": gradient, "fresh": fresh, "loaded": held(), "peak": peak}
    del trainer
    gc.collect()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Bytes a weight."""
    pretend_device.build()
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(refinerl.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    measured: dict[str, dict[str, float]] = json.loads(done.stdout)
    return measured


def test_between_steps_and_with_a_gradient(found: dict[str, dict[str, float]]) -> None:
    """Weights and two moments in float32, and beside weights in bfloat16 their masters; the gradient in float32."""
    assert found["float32"]["between"] == pytest.approx(4 + 8, rel=0.01)
    assert found["float32"]["gradient"] == pytest.approx(4 + 8 + 4, rel=0.01)
    assert found["bfloat16"]["between"] == pytest.approx(2 + 4 + 8, rel=0.01)
    assert found["bfloat16"]["gradient"] == pytest.approx(2 + 4 + 8 + 4, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_takes_no_room_beside_what_it_restores(found: dict[str, dict[str, float]], dtype: str) -> None:
    bytes_of = found[dtype]
    assert bytes_of["fresh"] == pytest.approx(bytes_of["between"] - 8, rel=0.01)
    assert bytes_of["loaded"] == pytest.approx(bytes_of["between"], rel=0.01)
    assert bytes_of["peak"] == pytest.approx(bytes_of["between"], rel=0.01)

"""FlashAttention for shared prefixes on a device that is not the CPU, with a stand-in for PyTorch's kernels there."""

from __future__ import annotations

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
import os
import torch
import flash
import pretend_device
pretend_device.load()
from refinerl.engines import segments
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.packing import why_not
from tiny import make_rows, tiny_model

library = torch.library.Library("aten", "IMPL")
library.impl("_flash_attention_forward", flash.forward, "PrivateUse1")
library.impl("_flash_attention_backward", flash.backward, "PrivateUse1")

P = (5, 6, 7, 8)
rows = make_rows([P, P, P, (9,)], [(20, 21, 22), (20, 21, 30, 31), (40,), (41, 42)], refined=[1])
found = []
for device in ("cpu", "pretend"):
    segments.has_flash = lambda device, dtype: True
    network = PolicyNetwork(tiny_model().to(device), impl="torch")
    assert why_not(network.trunk) == "", why_not(network.trunk)
    network.sharing = "always"
    outputs = network(rows, torch.tensor([0, 0.5, 0, 0], dtype=torch.float64))
    (outputs.logprobs.sin().sum() + outputs.weighted_nll).backward()
    found.append([outputs.logprobs.cpu(), *(p.grad.cpu() for p in network.parameters())])
names = [name for name, keys in flash.calls]
assert names.count("forward") >= 4 and names.count("backward") >= 4, names
for mine, theirs in zip(*found, strict=True):
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
print("same", flush=True)
# A thread of the backward pass may still drop what Python gave it, and an interpreter that ends aborts such a thread.
os._exit(0)
"""


def test_flash_attention_of_a_tree(tmp_path: Path) -> None:
    pretend_device.build()
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(refinerl.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"]

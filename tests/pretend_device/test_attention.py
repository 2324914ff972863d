"""FlashAttention for shared prefixes on a device that is not the CPU, with a stand-in for PyTorch's kernels there.

The stand-in computes what their documentation says: sequences of several lengths, whose masks are aligned at the last
key, and the logarithm of each query's sum of weights.
"""

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
import torch
import pretend_device
pretend_device.load()
from refinerl.engines import segments
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.packing import why_not
from tiny import make_rows, tiny_model

calls = []

def parts(q, k, v, queries, keys, scale):
    # For each sequence its ranges, keys and values for each query head, and the scores, (heads, queries, keys).
    for a, b, c, d in zip(queries[:-1].tolist(), queries[1:].tolist(), keys[:-1].tolist(), keys[1:].tolist()):
        groups = q.shape[1] // k.shape[1]
        theirs, values = (t[c:d].transpose(0, 1).repeat_interleave(groups, 0) for t in (k, v))
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril((d - c) - (b - a))
        scores = (q[a:b].transpose(0, 1) @ theirs.mT * scale).masked_fill(~seen, float("-inf"))
        yield slice(a, b), slice(c, d), theirs, values, scores

def forward(q, k, v, queries, keys, most_queries, most_keys, dropout, causal, debug, *, scale=None, **_):
    assert (dropout, causal, debug) == (0.0, True, False)
    assert queries.dtype == keys.dtype == torch.int32
    assert most_queries == int(queries.diff().max()) and most_keys == int(keys.diff().max())
    calls.append("forward")
    found = list(parts(*(t.cpu() for t in (q, k, v, queries, keys)), scale))
    out = torch.cat([(scores.softmax(-1) @ values).transpose(0, 1) for *_, values, scores in found])
    sums = torch.cat([scores.logsumexp(-1) for *_, scores in found], -1)
    there = torch.empty(0, device="pretend")
    return out.to("pretend"), sums.to("pretend"), there, there, there

def backward(g, q, k, v, out, sums, queries, keys, most_queries, most_keys, dropout, causal, *_, scale=None, **__):
    calls.append("backward")
    g, q, k, v, out, sums, queries, keys = (t.cpu() for t in (g, q, k, v, out, sums, queries, keys))
    to_q, to_k, to_v = (torch.zeros_like(t) for t in (q, k, v))
    for here, there, theirs, values, scores in parts(q, k, v, queries, keys, scale):
        weights = (scores - sums[:, here, None]).exp()
        up = g[here].transpose(0, 1)
        slope = (up @ values.mT - (up * out[here].transpose(0, 1)).sum(-1, keepdim=True)) * weights * scale
        to_q[here] = (slope @ theirs).transpose(0, 1)
        for target, found in ((to_k, slope.mT @ q[here].transpose(0, 1)), (to_v, weights.mT @ up)):
            target[there] = found.unflatten(0, (k.shape[1], -1)).sum(1).transpose(0, 1)
    return tuple(t.to("pretend") for t in (to_q, to_k, to_v))

library = torch.library.Library("aten", "IMPL")
library.impl("_flash_attention_forward", forward, "PrivateUse1")
library.impl("_flash_attention_backward", backward, "PrivateUse1")

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
assert calls.count("forward") >= 4 and calls.count("backward") >= 4, calls
for mine, theirs in zip(*found, strict=True):
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
print("same")
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

"""−log π and its gradients in hidden states and head against rivals: seconds and extra memory, each in its own process.

    pytest benches/bench_cross_entropy.py -o python_files='bench_*.py' -s

Forward and backward of Σ weight·nll, float32, with 100, 30 and 10 % of the rows kept (the others weigh 0), on a GPU
where there is one. The floor is the three matrix products alone, over the kept rows, in our chunks or in chunks of 512,
whichever is faster. Ours gives the entropies too; no rival does. Memory is the peak beyond inputs and their gradients:
resident memory of the process, or what PyTorch has allocated on the GPU.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from refinerl.kernels import chunked
from refinerl.kernels.cross_entropy import sequence_cross_entropy, token_logprobs

SHAPES = {"small": (2048, 576, 49152), "large": (512, 2048, 151936)}
KEPT = (100, 30, 10)
FLOORS = ("products, our chunks", "products, 512 rows")
CONTESTANTS = (
    *FLOORS,
    "ours",
    "ours, weights unknown",
    "eager",
    "eager, rows packed",
    "torch.compile",
    "linear_cross_entropy",
    "linear_cross_entropy, options",
)
ROUNDS = 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def products(rows: int | None, hidden: torch.Tensor, head: torch.Tensor, weights: torch.Tensor) -> None:
    kept = hidden.detach()[weights != 0]
    rows = min(rows or max(1, chunked.WORKSPACE[DEVICE] // (4 * len(head))), len(kept))
    logits = torch.empty(rows, len(head), device=hidden.device)
    of_hidden, of_head = torch.empty_like(kept), torch.empty_like(head)
    with torch.no_grad():
        for first in range(0, len(kept), rows):
            part = kept[first : first + rows]
            chunk = logits[: len(part)]
            torch.mm(part, head.t(), out=chunk)
            if first:
                of_head.addmm_(chunk.t(), part)
            else:
                torch.mm(chunk.t(), part, out=of_head)
            torch.mm(chunk, head, out=of_hidden[first : first + rows])


def eager(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (F.cross_entropy(F.linear(hidden, head), targets, reduction="none") * weights).sum()


def packed(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    kept = weights.nonzero().squeeze(-1)
    return eager(hidden[kept], head, targets[kept], weights[kept])


def contestant(name: str) -> Callable[..., torch.Tensor | None]:
    """What makes the loss, to be differentiated; the floor returns none."""
    if name in FLOORS:
        rows = None if name == FLOORS[0] else 512
        return lambda hidden, head, targets, weights: products(rows, hidden, head, weights)
    if name.startswith("linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions() if name.endswith("options") else None

        def linear(hidden, head, targets, weights):
            kept = targets.masked_fill(weights == 0, -100)  # it has no weights of rows
            return F.linear_cross_entropy(hidden, head, kept, reduction="sum", options=options)

        return linear
    return {
        "ours": lambda h, w, t, g: sequence_cross_entropy(h, w, t, weights=g).cost,
        "ours, weights unknown": lambda h, w, t, g: -(token_logprobs(h, w, t.masked_fill(g == 0, -100))[0] * g).sum(),
        "eager": eager,
        "eager, rows packed": packed,
        "torch.compile": torch.compile(eager),
    }[name]


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


def measure(name: str, shape: str, kept: int) -> dict[str, float]:
    rows, width, vocabulary = SHAPES[shape]
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, device=DEVICE).requires_grad_()
    head = (0.02 * torch.randn(vocabulary, width)).to(DEVICE).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,), device=DEVICE)
    weights = torch.where(torch.arange(rows, device=DEVICE) % 100 < kept, 0.5, 0.0)
    loss = contestant(name)

    def run() -> float:
        hidden.grad = head.grad = None
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        value = loss(hidden, head, targets, weights)
        if value is not None:
            value.backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    if name == "torch.compile":
        run()  # what compiling takes is not counted
    else:  # libraries are loaded, threads started
        small = torch.ones(64, 64, device=DEVICE, requires_grad=True)
        F.cross_entropy(small @ small, torch.zeros(64, dtype=torch.int64, device=DEVICE)).backward()
        token_logprobs(small.detach(), small.detach(), torch.zeros(64, dtype=torch.int64, device=DEVICE))
    hidden.grad, head.grad = torch.ones_like(hidden), torch.ones_like(head)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        first = run()
        extra = torch.cuda.max_memory_allocated() - before
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        before = resident("VmRSS")
        first = run()
        extra = resident("VmHWM") - before
    return {"seconds": min([first, *(run() for _ in range(ROUNDS - 1))]), "extra": extra}


@pytest.fixture(scope="module")
def table(request):
    found = {}
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        chunk = chunked.WORKSPACE[DEVICE] / 1e6
        print(f"\n\n{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}, chunk of {chunk:.0f} MB;")
        print("seconds (× the floor), extra MB, and how many times faster ours is")
        for (shape, kept), row in found.items():
            floor = min((row[name]["seconds"] for name in FLOORS if name in row), default=float("nan"))
            own = row.get("ours", {}).get("seconds", float("nan"))
            print(f"{shape} {SHAPES[shape]}, {kept} % kept")
            for name, got in row.items():
                seconds = got["seconds"]
                times = f"{seconds:8.3f} s (×{seconds / floor:5.2f})"
                print(f"  {name:31} {times} {got['extra'] / 1e6:7.0f} MB   ×{seconds / own:.2f}")


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(benchmark, table, shape, kept, name):
    command = [sys.executable, __file__, name, shape, str(kept)]

    def alone():
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(answer.splitlines()[-1])

    got = benchmark.pedantic(alone, rounds=1)
    benchmark.extra_info.update(got)
    table.setdefault((shape, kept), {})[name] = got


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))

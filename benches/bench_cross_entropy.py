"""Cross-entropy and its gradients against rivals: seconds and extra memory, all in one run.

    pytest benches/bench_cross_entropy.py -o python_files='bench_*.py' -s

Forward and backward of Σ weight·nll in float32, with 100, 30 and 10 % of the rows kept (the others weigh 0), on a GPU
if there is one. The lower bound is the three matrix products alone, over the kept rows, in our chunks or all at once,
whichever is faster. Ours also computes the entropies, which no rival does.

The memory of each contestant is measured in its own process: the peak beyond inputs and their gradients, of the process
or of PyTorch's allocations on the GPU. The fast contestants are then timed in turns in one process, so that other work
on the machine affects all alike: the best of three rounds. The time of a slow one is that of its single run.
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

from refinerl.kernels import available, chunked
from refinerl.kernels.cross_entropy import sequence_cross_entropy, token_logprobs

SHAPES = {"small": (2048, 576, 49152), "large": (512, 2048, 151936)}
KEPT = (100, 30, 10)
FLOORS = ("products, our chunks", "products, all rows at once")
QUICK = (*FLOORS, "ours", "ours, weights unknown", "eager", "eager, rows packed")
SLOW = ("torch.compile", "linear_cross_entropy", "linear_cross_entropy, options")
ROUNDS = 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def products(at_once: bool, hidden: torch.Tensor, head: torch.Tensor, weights: torch.Tensor) -> None:
    kept = hidden.detach()[weights != 0]
    rows = len(kept) if at_once else chunked.rows_of_a_chunk(len(kept), head)
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
    """Make the function that computes a contestant's loss; that of the lower bound returns none."""
    if name in FLOORS:
        return lambda hidden, head, targets, weights: products(name == FLOORS[1], hidden, head, weights)
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
    """Read VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


class Race:
    """The inputs of one shape, and the measurement of contestants on them."""

    def __init__(self, shape: str, kept: int) -> None:
        rows, width, vocabulary = SHAPES[shape]
        torch.manual_seed(0)
        self.hidden = torch.randn(rows, width, device=DEVICE).requires_grad_()
        self.head = (0.02 * torch.randn(vocabulary, width)).to(DEVICE).requires_grad_()
        self.targets = torch.randint(0, vocabulary, (rows,), device=DEVICE)
        self.weights = torch.where(torch.arange(rows, device=DEVICE) % 100 < kept, 0.5, 0.0)

    def seconds(self, loss: Callable[..., torch.Tensor | None]) -> float:
        self.hidden.grad = self.head.grad = None
        synchronize()
        start = time.perf_counter()
        value = loss(self.hidden, self.head, self.targets, self.weights)
        if value is not None:
            value.backward()
        synchronize()
        return time.perf_counter() - start

    def alone(self, name: str) -> dict[str, float]:
        """Measure memory and time of the first run after warming up; for torch.compile the second."""
        loss = contestant(name)
        if name == "torch.compile":
            self.seconds(loss)  # what compiling takes is not counted
        else:  # libraries are loaded, threads started
            small, target = torch.ones(64, 64, device=DEVICE, requires_grad=True), torch.zeros(64, device=DEVICE).long()
            F.cross_entropy(small @ small, target).backward()
            token_logprobs(small.detach(), small.detach(), target)
        self.hidden.grad, self.head.grad = torch.ones_like(self.hidden), torch.ones_like(self.head)
        synchronize()
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            seconds = self.seconds(loss)
            extra = torch.cuda.max_memory_allocated() - before
        else:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
            before = resident("VmRSS")
            seconds = self.seconds(loss)
            extra = resident("VmHWM") - before
        return {"seconds": seconds, "extra": extra}

    def in_turns(self) -> dict[str, float]:
        """Time the fast contestants in turns; return the best seconds of each."""
        losses = {name: contestant(name) for name in QUICK}
        rounds = [{name: self.seconds(loss) for name, loss in losses.items()} for _ in range(ROUNDS)]
        return {name: min(one[name] for one in rounds) for name in QUICK}


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


# --- the table -----------------------------------------------------------------------------------

Row = dict[str, dict[str, float]]


def race(shape: str, kept: int) -> Row:
    """Measure the seconds and extra bytes of each contestant."""

    def process(*arguments: str) -> dict[str, float]:
        command = [sys.executable, __file__, shape, str(kept), *arguments]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found: dict[str, float] = json.loads(answer.splitlines()[-1])
        return found

    row = {name: process(name) for name in (*QUICK, *SLOW)}
    for name, seconds in process().items():
        row[name]["seconds"] = seconds
    return row


def told(shape: str, kept: int, row: Row) -> list[str]:
    """Print a line for each contestant, as in docs/measurements.md, and the goals."""
    floor, own = min(row[name]["seconds"] for name in FLOORS), row["ours"]
    rows, _, vocabulary = SHAPES[shape]
    rows = sum(row % 100 < kept for row in range(rows))
    chunk = 4 * vocabulary * chunked.rows_of_a_chunk(rows, torch.empty(vocabulary, 0, device=DEVICE))
    lines = [f"\n{shape} N, H, V = {SHAPES[shape]}, {kept} % kept, chunk of {chunk / 1e6:.0f} MB\n"]
    lines += ["| | s | × floor | extra MB | ours is faster |", "|---|---|---|---|---|"]
    for name, got in row.items():
        seconds, megabytes = got["seconds"], got["extra"] / 1e6
        lines.append(
            f"| {name} | {seconds:.2f} | {seconds / floor:.2f} | {megabytes:.0f} | ×{seconds / own['seconds']:.2f} |"
        )
    goals = {
        "at most 1.08 × the floor": own["seconds"] <= 1.08 * floor,
        "at most chunk + 40 MB": own["extra"] <= chunk + 40e6,
        "faster than eager": own["seconds"] < row["eager"]["seconds"],
    }
    if kept == 30:
        goals["3 times faster"] = 3 * own["seconds"] <= row["eager"]["seconds"]
    return [*lines, "", *(f"{'met' if met else 'MISSED'}: {goal}" for goal, met in goals.items())]


@pytest.fixture(scope="module")
def table(request):
    lines = [f"\n\n{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}, kernels {impl()}"]
    yield lines
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n".join(lines))


def impl() -> str:
    return f"cpu ({available()['cpu'].architectures[-1]})" if DEVICE == "cpu" else "cuda"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(benchmark, table, shape, kept):
    row = benchmark.pedantic(race, args=(shape, kept), rounds=1)
    benchmark.extra_info.update(row)
    table += told(shape, kept, row)


if __name__ == "__main__":
    shape, kept, *names = sys.argv[1:]
    inputs = Race(shape, int(kept))
    print(json.dumps(inputs.alone(names[0]) if names else inputs.in_turns()))

"""The epilogue alone: its bytes per second against those of a copy on the card, and what a launch costs the host."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from gpu_check.site import Fact, Site
from gpu_check.timing import copy_bytes_per_second, measure
from refinerl.kernels import cuda

SHAPES = (
    (883, 151_936, torch.float32),  # a chunk of 512 MiB; rows are read twice
    (883, 151_936, torch.bfloat16),
    (2730, 49_152, torch.float32),  # rows stay in shared memory
    (2730, 49_152, torch.bfloat16),
)


def run(site: Site) -> Iterator[Fact]:
    copied = copy_bytes_per_second(site.device)
    yield {"copy_gb_per_s": round(copied / 1e9)}
    epilogue = cuda.Epilogue()
    for shape in SHAPES:
        yield _timed(epilogue, *shape, copied)
    yield {"host_us_of_a_launch": round(_host_time(epilogue), 1)}


def _timed(epilogue: cuda.Epilogue, rows: int, length: int, dtype: torch.dtype, copied: float) -> Fact:
    """Both kernels, and the share of a copy's bandwidth at which they move what none can spare."""
    logits = torch.randn(rows, length, device="cuda").to(dtype)
    targets = torch.randint(0, length, (rows,), device="cuda")
    weights, original = torch.rand(rows, device="cuda"), logits.clone()
    statistics = measure(lambda: epilogue.statistics(logits, targets, 1.0), "cuda")
    fused = measure(
        lambda: epilogue.fused(logits, targets, weights, None, 1.0), "cuda", prepare=lambda: logits.copy_(original)
    )
    once = 1e3 * logits.nbytes / copied
    return {
        "rows": rows,
        "vocabulary": length,
        "dtype": str(dtype),
        "statistics_ms": round(statistics.ms, 4),
        "statistics_of_copy": round(once / statistics.ms, 3),  # a read
        "fused_ms": round(fused.ms, 4),
        "fused_of_copy": round(2 * once / fused.ms, 3),  # a read and a write
    }


def _host_time(epilogue: cuda.Epilogue, launches: int = 1000) -> float:
    """Microseconds of the host for each call."""
    logits, targets = torch.zeros(1, 64, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    epilogue.statistics(logits, targets, 1.0)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(launches):
        epilogue.statistics(logits, targets, 1.0)
    return 1e6 * (time.perf_counter() - began) / launches

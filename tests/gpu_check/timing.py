"""Milliseconds and memory of something on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """A median over the repetitions, and the most memory that one took beyond what there was before."""

    ms: float
    peak_gib: float | None
    """None on a CPU."""


def measure(
    work: Callable[[], object],
    device: str,
    *,
    prepare: Callable[[], object] = lambda: None,
    warm_up: int = 3,
    repeat: int = 10,
) -> Timing:
    """On a GPU between CUDA events, else by the clock; `prepare` goes before each repetition and is not timed.

    What `work` leaves allocated counts as there before.
    """
    for _ in range(warm_up):
        prepare()
        work()
    if device == "cpu":
        return Timing(statistics.median(_by_clock(work, prepare) for _ in range(repeat)), None)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeat):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        prepare()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30
    return Timing(statistics.median(times), peak)


def _by_clock(work: Callable[[], object], prepare: Callable[[], object]) -> float:
    prepare()
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def copy_bytes_per_second(device: str) -> float:
    """Of a copy within the device's memory, bytes read and written together."""
    size = 2**30 if device != "cpu" else 2**22
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = measure(lambda: target.copy_(source), device)
    return 2 * size / (took.ms / 1e3)


def flops_per_second(device: str) -> float:
    """Of a bfloat16 product of 8192 by 8192 by 8192, random values."""
    side = 8192 if device != "cpu" else 128
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return 2 * side**3 / (measure(lambda: a @ b, device).ms / 1e3)

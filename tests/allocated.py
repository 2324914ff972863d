"""The memory that PyTorch allocates on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def taken(work: Callable[[], Any]) -> tuple[int, int]:
    """The largest tensor and the largest sum of all tensors, in bytes, that PyTorch allocated during the work."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    kineto = recorded.profiler.kineto_results
    sizes = [e.nbytes() for e in sorted(kineto.events(), key=lambda e: e.start_ns()) if e.name() == "[memory]"]
    assert sizes, "the profiler saw no memory"
    sums = torch.tensor(sizes).cumsum(0)
    return max(sizes), int(sums.max())

"""Numerical kernels, each behind one door.

`cross_entropy`   the door: −log softmax and entropy of target tokens straight from hidden states, no [N, V] logits held
`naive`           its twin in plain PyTorch          `chunked`   what the native ones share: products, chunks, packing
`cpu` · `cuda`    their epilogues                    `ops`       they as PyTorch operators
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Availability:
    """Whether an implementation can run here, and why not."""

    usable: bool
    reason: str = ""
    """Why not; empty where it can."""
    architectures: tuple[str, ...] = ()
    """What this build's CUDA kernels are compiled for, usable here or not."""


def available() -> dict[str, Availability]:
    """For each implementation of `kernels.impl`: "torch", "cpu", "cuda". Asking for CUDA initialises its driver."""
    return {"torch": Availability(True), "cpu": _cpu(), "cuda": _cuda()}


def _cpu() -> Availability:
    try:
        import_module("refinerl.kernels.cpu")
    except ImportError as error:
        return Availability(False, f"refinerl._core is not built ({error})")
    return Availability(True)


def _cuda() -> Availability:
    try:
        cuda = import_module("refinerl.kernels.cuda")
    except ImportError as error:
        return Availability(False, f"this build has no CUDA kernels ({error})")
    found: Availability = cuda.availability()
    return found

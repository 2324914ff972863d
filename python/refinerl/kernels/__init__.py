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
    """What this build's CUDA kernels are compiled for, usable here or not; for the CPU, the levels of SIMD that this
    processor has, of which the last is used."""


def available() -> dict[str, Availability]:
    """For each implementation of `kernels.impl`: "torch", "cpu", "cuda". Initialises the CUDA driver."""
    return {impl: availability(impl) for impl in ("torch", "cpu", "cuda")}


def availability(impl: str) -> Availability:
    """Of one implementation; only asking for CUDA initialises its driver."""
    if impl == "torch":
        return Availability(True)
    try:
        module = import_module(f"refinerl.kernels.{impl}")
    except ImportError as error:
        return Availability(False, f"refinerl._core is not built ({error})")
    found: Availability = module.availability()
    return found

"""Cross-entropy of target tokens straight from hidden states, without holding the [N, V] logits; trees of rows.

`cross_entropy`   the public functions              `chunked`   shared by the native ones: products, chunks, packing
`naive`           their twin in plain PyTorch       `cpu` · `cuda`   the native epilogues
`ops`             the native ones as PyTorch operators

`prefixes` makes rows that begin alike one tree, in which each token stands once; `prefixes_naive` is its twin.
`tree_attention` is attention over that tree on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Availability:
    """The availability of an implementation on this machine."""

    usable: bool
    reason: str = ""
    """The reason why it cannot; empty if it can."""
    architectures: tuple[str, ...] = ()
    """For CUDA, the architectures that this build's kernels are compiled for, usable here or not; for the CPU, the
    levels of SIMD that this processor has, of which the last is used."""


def available() -> dict[str, Availability]:
    """Check each implementation of `kernels.impl`: "torch", "cpu", "cuda". Initializes the CUDA driver."""
    return {impl: availability(impl) for impl in ("torch", "cpu", "cuda")}


def availability(impl: str) -> Availability:
    """Check one implementation; only "cuda" initializes the CUDA driver.

    >>> availability("cpu").usable
    True
    """
    if impl == "torch":
        return Availability(True)
    try:
        module = import_module(f"refinerl.kernels.{impl}")
    except ImportError as error:
        return Availability(False, f"refinerl._core is not built ({error})")
    found: Availability = module.availability()
    return found

"""The section `kernels`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Section


class KernelsConfig(Section):
    """The implementation of the fused cross-entropy."""

    impl: Literal["auto", "cuda", "cpu", "torch"] = "auto"
    """cuda, cpu (SIMD) or torch; auto: the fastest that works on the run's device."""

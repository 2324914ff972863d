"""The section `kernels`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Section


class KernelsConfig(Section):
    """Which implementation of the fused cross-entropy runs."""

    impl: Literal["auto", "cuda", "cpu", "torch"] = "auto"

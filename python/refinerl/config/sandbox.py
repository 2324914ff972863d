"""The section `sandbox`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, CountOrZero, Positive, Section


class SandboxConfig(Section):
    """Limits for each test of a program."""

    workers: CountOrZero = 0
    """Programs that run at once on a machine; 0: one for each core."""
    wall_seconds: Positive = 4.0
    cpu_seconds: Positive = 4.0
    memory_mb: Count = 512
    output_kb: Count = 1024
    require: Literal["best_effort", "full"] = "best_effort"
    """full: refuse to start where a protection is missing."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import beside the standard library, such as numpy."""

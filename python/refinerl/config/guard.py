"""The section `guard`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Fraction, Section


class GuardConfig(Section):
    """When a run ends itself."""

    max_skipped: Count = 5
    """Optimizer steps in a row that were skipped for a loss or gradient that is not finite."""
    max_idle: Count = 5
    """Steps at the run's start without any optimizer step, because no response taught anything."""
    max_sandbox_errors: Fraction = 0.01
    """Share of a batch that our own sandbox may fail."""

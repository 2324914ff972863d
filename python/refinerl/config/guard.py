"""The section `guard`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Fraction, Section


class GuardConfig(Section):
    """Conditions under which a run stops."""

    max_skipped: Count = 5
    """Stop after this many optimizer steps in a row were skipped because loss or gradient was not finite."""
    max_idle: Count = 5
    """Stop if the first steps, this many, took no optimizer step because no response gave a training signal."""
    max_sandbox_errors: Fraction = 0.01
    """Stop if the sandbox itself fails on more than this share of a batch."""

"""The section `guard`."""

from __future__ import annotations

from refinerl.config.conditions import JUDGED
from refinerl.contracts.options import Count, Fraction, Reads, Section


class GuardConfig(Section):
    """Conditions under which a run stops."""

    read_when = Reads({"max_sandbox_errors": JUDGED})

    max_skipped: Count = 5
    """Stop after this many optimizer steps in a row were skipped because loss or gradient was not finite."""
    max_idle: Count = 5
    """Stop if the first steps, this many, took no optimizer step because no response gave a training signal."""
    max_sandbox_errors: Fraction = 0.01
    """Stop if the sandbox itself fails on more than this share of a batch."""

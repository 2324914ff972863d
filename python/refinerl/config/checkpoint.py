"""The section `checkpoint`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Section


class CheckpointConfig(Section):
    """When to save."""

    every: Count = 50
    """Steps between checkpoints; the last step always has one."""
    keep: Count = 2
    """Older ones are removed."""

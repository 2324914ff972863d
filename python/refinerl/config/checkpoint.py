"""The section `checkpoint`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Section


class CheckpointConfig(Section):
    """Frequency of checkpoints, and the number that is kept."""

    every: Count = 50
    """Steps between checkpoints. The last step always writes one."""
    keep: Count = 2
    """Checkpoints that are kept, in addition to the one with the best evaluation."""

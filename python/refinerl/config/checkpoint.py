"""The section `checkpoint`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, NonNegative, Section


class CheckpointConfig(Section):
    """Frequency of checkpoints, the number that is kept, and the choice of final/."""

    every: Count = 50
    """Steps between checkpoints. The last step always writes one."""
    minutes: NonNegative = 60.0
    """Minutes after which a checkpoint is written at the end of a step, however few steps there were. 0: never."""
    keep: Count = 2
    """Checkpoints that are kept, in addition to the one with the best evaluation."""
    final: Literal["last", "best"] = "last"
    """The step whose model becomes final/: the last one, or the one with the best evaluation. The evaluation before
    training is of no step; a run in which it is the best says so."""

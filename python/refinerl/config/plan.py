"""The section `plan`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Positive, Section


class PlanConfig(Section):
    """The machine that a recipe is written for, which `--dry-run` counts with where it sees none. No run reads it."""

    gpus: Count = 1
    """GPUs, one for each rank, where no launcher says how many there are."""
    card: str | None = None
    """A GPU's name."""
    card_gib: Positive | None = None
    """And its memory."""

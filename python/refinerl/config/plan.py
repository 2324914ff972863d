"""The section `plan`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Positive, Section


class PlanConfig(Section):
    """The machine that a recipe is written for, which `--dry-run` counts with where it sees none. No run reads it."""

    gpus: Count | None = None
    """GPUs, one for each rank. None: as many as ranks were started, or one."""
    card: str | None = None
    """A GPU's name."""
    card_gib: Positive | None = None
    """And its memory."""

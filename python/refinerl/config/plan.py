"""The section `plan`."""

from __future__ import annotations

from refinerl.config.conditions import PLANNED
from refinerl.contracts.options import ALL, Count, Positive, Reads, Section


class PlanConfig(Section):
    """The machine that a recipe is written for. Only `--dry-run` reads it, if no such machine is found."""

    read_when = Reads({ALL: PLANNED})

    gpus: Count = 1
    """Number of GPUs, one per rank, unless a launcher started the ranks."""
    card: str | None = None
    """Name of the GPU."""
    card_gib: Positive | None = None
    """Memory of the GPU in GiB."""

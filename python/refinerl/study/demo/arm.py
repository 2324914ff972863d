"""An arm of the demo, read from its run's folder while the run is writing it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WINDOW = 5
"""Number of last steps over which the view averages: one step has few prompts."""
HELD_OUT = "evaluate/pass@1"
"""The metric of held-out success: the share of new problems that are solved."""


@dataclass(frozen=True)
class Arm:
    """The state of an arm at one moment."""

    name: str
    folder: Path
    steps: int
    """Steps of the whole run."""
    rows: tuple[Mapping[str, Any], ...] = ()
    """Rows of metrics.jsonl. The row of step 0 holds only the evaluation before training."""
    seconds: float = 0.0
    """Since the start of its process, until its end."""
    running: bool = True

    @property
    def step(self) -> int:
        """The last finished step; 0 before the first."""
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(step, held-out success) of each evaluation."""
        return [(row["step"], row[HELD_OUT]) for row in self.rows if row.get(HELD_OUT) is not None]

    @property
    def left(self) -> float | None:
        """Estimate the seconds until the last step from the mean time of a step; None before the first step."""
        if not self.running:
            return 0.0
        times = [row["time/step"] for row in self.rows if row["step"]]
        return sum(times) / len(times) * (self.steps - self.step) if times else None

    def recent(self, metric: str) -> float | None:
        """Return the mean of a metric over the last `WINDOW` steps; None if none of them has it."""
        steps = [row for row in self.rows if row["step"]][-WINDOW:]
        values = [row[metric] for row in steps if row.get(metric) is not None]
        return sum(values) / len(values) if values else None

    def total(self, metric: str) -> float:
        """Return the sum of a metric over all steps."""
        return math.fsum(row.get(metric) or 0 for row in self.rows)

    def first_step_at(self, level: float) -> int | None:
        """Return the first evaluated step at which held-out success reached `level`; None if it never did."""
        return next((step for step, value in self.curve if value >= level), None)

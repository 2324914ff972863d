"""Means of a run's metrics over windows of steps; a single step has too few prompts to tell anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARE = 5
"""A window is a fifth of the steps …"""
LEAST = 3
"""… and at least this many."""


@dataclass(frozen=True)
class Mean:
    """A mean over steps."""

    value: float
    error: float | None
    """Standard error, s/√n, as if steps were independent; None for a single value."""


@dataclass(frozen=True)
class Window:
    """Consecutive training steps."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def label(self) -> str:
        """The first and the last step: `steps 1–20`."""
        first, last = self.rows[0]["step"], self.rows[-1]["step"]
        return f"steps {first}–{last}" if last > first else f"step {first}"

    def mean(self, name: str) -> Mean | None:
        """Return the mean of a metric over the steps that have it; None if no step does.

        >>> Window([{"step": 1, "a": 1.0}, {"step": 2, "a": 3.0}, {"step": 3, "a": None}]).mean("a")
        Mean(value=2.0, error=1.0)
        """
        values = [row[name] for row in self.rows if row.get(name) is not None]
        if not values:
            return None
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return Mean(mean, None)
        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return Mean(mean, math.sqrt(variance / len(values)))


def windows(rows: Sequence[Mapping[str, Any]]) -> list[Window]:
    """Return the first and the last window of training steps, or one of all steps if there are too few for two.

    >>> [window.label for window in windows([{"step": step} for step in range(1, 41)])]
    ['steps 1–8', 'steps 33–40']
    >>> [window.label for window in windows([{"step": step} for step in range(1, 6)])]
    ['steps 1–5']
    """
    length = max(LEAST, len(rows) // SHARE)
    return [Window(rows[:length]), Window(rows[-length:])] if len(rows) >= 2 * length else [Window(rows)]

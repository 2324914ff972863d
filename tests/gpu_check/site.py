"""Where a check runs, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The repository."""

Fact = dict[str, Any]
"""A few figures by name. `wrong` is a sentence, and fails the check; `hopeless` is one too, and ends all of them."""


class SkipError(Exception):
    """The check cannot run here; says why."""


@dataclass(frozen=True)
class Site:
    """The device of a check, and a folder for what it writes."""

    device: str
    folder: Path

    @property
    def rehearsing(self) -> bool:
        """Whether this is a rehearsal: on the CPU, at small sizes."""
        return self.device == "cpu"

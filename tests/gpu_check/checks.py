"""All checks in the order of their worth. Those that time something run alone, the others a few together."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_check.runs import RUNS


@dataclass(frozen=True)
class Check:
    """A module with a function `run(site, *arguments)` that yields facts."""

    name: str
    module: str
    limit: float
    """Seconds."""
    arguments: tuple[str, ...] = ()
    rehearsed: bool = True
    """Whether it also runs without a GPU."""


@dataclass(frozen=True)
class Round:
    """Checks of which so many run at a time."""

    together: int
    checks: tuple[Check, ...]


ROUNDS = (
    Round(1, (Check("environment", "gpu_check.environment", 60),)),
    Round(
        6,
        (
            Check("tests", "gpu_check.marked_tests", 150, rehearsed=False),
            *(Check(f"run/{name}", "gpu_check.runs", 100, (name,)) for name in RUNS),
            Check("ends", "gpu_check.ends", 120),
        ),
    ),
    Round(
        1,
        (
            Check("cross-entropy", "gpu_check.cross_entropy", 90),
            Check("epilogue", "gpu_check.epilogue", 45, rehearsed=False),
            Check("weights", "gpu_check.weights", 120),
            Check("generation", "gpu_check.generation", 60),
            Check("step", "gpu_check.step", 120),
        ),
    ),
    Round(
        5,
        (
            Check("graph", "gpu_check.graph", 45, rehearsed=False),
            Check("sandbox", "gpu_check.sandbox", 45),
            *(
                Check(f"sanitizer/{tool}", "gpu_check.sanitizer", 110, (tool,), rehearsed=False)
                for tool in ("memcheck", "racecheck", "synccheck")
            ),
        ),
    ),
)

ALL = {check.name: check for turn in ROUNDS for check in turn.checks}

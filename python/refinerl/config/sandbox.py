"""The section `sandbox`."""

from __future__ import annotations

from typing import Any, Literal

from refinerl.config.conditions import JUDGED
from refinerl.contracts.options import Count, CountOrZero, Positive, Reads, Section, When

PROGRAMS = "programs to judge: task.name=code and its rewards adaptive or coarse, or a benchmark"


def _programs(run: Any) -> bool:
    return bool(run.judges_programs or (run.evaluate.every > 0 and run.evaluate.benchmark != "task"))


def _math(run: Any) -> bool:
    return "rule:math" in run.task.rewards


class SandboxConfig(Section):
    """The sandbox that runs programs, and the limits of each test."""

    read_when = Reads(
        {
            "workers": When(f"{PROGRAMS}, or task.reward=rule:math", lambda own, run: _programs(run) or _math(run)),
            **dict.fromkeys(
                ("wall_seconds", "cpu_seconds", "memory_mb", "output_kb", "require", "packages"),
                When(PROGRAMS, lambda own, run: _programs(run)),
            ),
            "isolate": JUDGED,
        }
    )

    workers: CountOrZero = 0
    """Programs that run at once on a machine. 0: one per core."""
    wall_seconds: Positive = 4.0
    """Seconds on the clock."""
    cpu_seconds: Positive = 4.0
    """Seconds of processor time."""
    memory_mb: Count = 512
    """MiB of memory."""
    output_kb: Count = 1024
    """KiB of output."""
    isolate: Literal["test", "program"] = "test"
    """test: a process for each test. program: one process for all tests of a program whose function is called, which is
    faster but protects less: the program still sees no answer, but it sees the inputs of all its tests and keeps state
    from one test to the next. Programs that read standard input have a process for each test in any case, and so do
    all programs if the refiner's template shows `$feedback`, into which they could copy inputs of hidden tests."""
    require: Literal["best_effort", "full"] = "best_effort"
    """full: refuse to start if a protection is missing."""
    packages: tuple[str, ...] = ()
    """Installed packages, such as numpy, that programs may import in addition to the standard library."""

"""Arms of a recorded demo at any moment."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from refinerl.study.demo.arm import Arm

RECORDED = Path(__file__).parent / "recorded"
"""Rows of a real demo on two busy cores, with the metrics that its view reads."""


def arms(none: int = 51, dynamic: int = 51, *, running: bool = True) -> list[Arm]:
    """Both arms after so many rows."""
    return [
        Arm(name, Path("runs/demo-20261128-120000") / name / "seed-0", 50, rows(name)[:count], 83.0, running)
        for name, count in (("none", none), ("dynamic", dynamic))
    ]


def rows(name: str) -> tuple[dict, ...]:
    return tuple(json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines())


def drawn(what: object, width: int, height: int = 40, **console: object) -> list[str]:
    """The lines of what a terminal of this size shows."""
    out = io.StringIO()
    Console(file=out, width=width, height=height, **console).print(what, end="")
    return out.getvalue().splitlines()

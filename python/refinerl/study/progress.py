"""Progress of a study: a line for each run at its start, at each evaluation and at its end; live on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from refinerl.data.terminal import safe
from refinerl.study.measures import held_out
from refinerl.study.plan import Trial
from refinerl.study.runs import Run


class Progress:
    """Shows runs on a console. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._lines: dict[str, Text] = {}
        self._shown: dict[str, int] = {}
        self._total = self._done = 0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, tuning: int) -> None:
        """Announce the number of runs; `tuning` of them choose the points of grids, after which others follow."""
        if self._total:
            self.say(f"{self._total} runs to do" + (f", {tuning} of them for tuning" if tuning else ""))

    def add(self, count: int) -> None:
        """Add runs to the total."""
        self._total += count

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(safe(text), highlight=False, markup=False, soft_wrap=True)

    def started(self, trial: Trial, run: Run) -> None:
        """Show the start of a run."""
        rows = run.rows()
        step = rows[-1]["step"] if rows else 0
        self._shown[trial.name] = len(held_out(rows))
        self.say(f"{trial.name}: " + (f"goes on after step {step}" if step else "started"))

    def step(self, trial: Trial, run: Run) -> None:
        """Show the state of a running run."""
        rows = run.rows()
        line = state(trial, rows)
        evaluations = len(held_out(rows))
        if self._live is not None:
            self._lines[trial.name] = Text(f"{trial.name}: {line}")
            self._draw()
        elif evaluations > self._shown[trial.name]:
            self._shown[trial.name] = evaluations
            self.say(f"{trial.name}: {line}")

    def ended(self, trial: Trial, run: Run, *, finished: bool) -> None:
        """Show the end of a run."""
        self._done += 1
        self._lines.pop(trial.name, None)
        curve = held_out(run.rows())
        result = f", held out {curve[-1][1]:.3f}" if curve else ""
        spent = duration(time.monotonic() - run.started)
        what = f"done in {spent}{result}" if finished else f"failed: {run.last_line()}"
        self.say(f"{trial.name}: {what} ({self._done} of {self._total})")
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            table = Table.grid()
            for line in self._lines.values():
                table.add_row(line)
            self._live.update(table, refresh=True)


def state(trial: Trial, rows: list[dict[str, Any]]) -> str:
    """Describe a running run: its step, its last held-out success, the time that is left."""
    steps = [row for row in rows if row["step"]]
    curve = held_out(rows)
    parts = [f"step {steps[-1]['step'] if steps else 0}/{trial.steps}"]
    if curve:
        parts.append(f"held out {curve[-1][1]:.3f}")
    if steps and (left := time_left(trial, steps)) is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def time_left(trial: Trial, steps: list[Mapping[str, Any]] | list[dict[str, Any]]) -> float | None:
    """Estimate a run's remaining seconds from the mean time of its steps."""
    times = [row["time/step"] for row in steps if row.get("time/step") is not None]
    return sum(times) / len(times) * (trial.steps - steps[-1]["step"]) if times else None


def duration(seconds: float) -> str:
    """Write a duration in seconds, minutes or hours.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

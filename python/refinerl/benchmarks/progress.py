"""The progress of an evaluation: bars on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich import progress as rich
from rich.console import Console

from refinerl.data.terminal import duration

PAUSE = 60.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """Shows how far a rank's share of an evaluation is; a context manager.

    Args:
        console: where it is shown.
        tasks: tasks of the rank's share.
    """

    def __init__(self, console: Console, tasks: int) -> None:
        self._console = console
        self._total = tasks
        self._done = 0
        self._start = self._last = time.monotonic()
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(bar_width=30),
            rich.TaskProgressColumn(),
            rich.TimeElapsedColumn(),
            rich.TextColumn("left"),
            rich.TimeRemainingColumn(),
        )
        self._bars = rich.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._ids: dict[str, rich.TaskID] = {}

    def add(self, name: str, total: int) -> None:
        """Add a bar."""
        self._ids[name] = self._bars.add_task(name, total=total)

    def advance(self, name: str) -> Callable[[int], None]:
        """Return the function that advances a bar."""
        bar = self._ids[name]
        return lambda done: self._bars.advance(bar, done)

    def tasks(self, count: int) -> None:
        """Count finished tasks; without a terminal, print a line if the last one is a minute old."""
        self._done += count
        now = time.monotonic()
        if self._console.is_terminal or now - self._last < PAUSE or self._done >= self._total:
            return
        self._last = now
        left = (now - self._start) / self._done * (self._total - self._done) if self._done else 0.0
        said = f"{self._done} of {self._total} tasks of this rank are done, {duration(left)} left"
        self._console.print(said, highlight=False, soft_wrap=True)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

"""Output of a run on a console: the live view on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from refinerl.data.terminal import safe
from refinerl.report.rows import RolloutRow
from refinerl.run.folded import folded
from refinerl.run.live import Phase, View
from refinerl.run.step_line import step_line

FRAMES = 4
"""Frames of the live view in a second."""
WARNING = "warning: "


def redraws(console: Console) -> bool:
    """Return True if lines can be drawn again: the console is a terminal, which TERM does not call dumb.

    FORCE_COLOR makes a file count as a terminal for colours, but not here.
    """
    try:
        connected = console.file.isatty()
    except (AttributeError, ValueError):  # a file without it, or one that is closed
        connected = False
    return connected and console.is_terminal and not console.is_dumb_terminal and not console.quiet


class Display:
    """Shows a run on a console.

    Args:
        console: where; nothing is shown if it is quiet.
        steps: steps of the whole run.
        quiet: show warnings only.
        lines: False if something else shows the steps, such as a function of the user's. The view then shows phases
            only, and is away between them.
    """

    def __init__(self, console: Console, steps: int, *, quiet: bool = False, lines: bool = True) -> None:
        self.console = console
        self.view = View(steps)
        self._quiet, self._lines = quiet, lines
        self.is_live = redraws(console) and not quiet
        """True if phases are shown while they run."""
        self._live: Live | None = None
        self._within = False
        self._last: Text | None = None
        self._led: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def begin(self, step: int) -> None:
        """Show that a step begins. From the first one on the view stays, unless something else shows the steps."""
        self.view.step = step
        self.view.finished = max(self.view.finished, step - 1)  # a resumed run has finished the steps before
        self._within = self._lines
        if self._within:
            self._start()

    @contextmanager
    def phase(self, label: str, total: float | None = None) -> Iterator[None]:
        """Show that work runs; with a `total`, also its progress."""
        self.view.phase = Phase(label, time.monotonic(), total)
        self._start()
        try:
            yield
        finally:
            self.view.phase = None
            if not self._within:
                self.stop()

    def tick(self, done: float) -> None:
        """Advance the progress of the phase."""
        if self.view.phase is not None:
            self.view.phase.done += done

    def expect(self, total: float) -> None:
        """Set the total of the phase's progress."""
        if self.view.phase is not None:
            self.view.phase.total = total

    def log(self, row: Mapping[str, float], step: int, left: float | None) -> None:
        """Show the metrics of a finished step, in the view or as a line."""
        self.view.log(row if self._lines else {}, step, left)
        if self._quiet or not self._lines:
            return
        self._last = step_line(row, step, self.view.steps, left, self.console.width)
        if not self.is_live:
            self.console.print(self._last, highlight=False, soft_wrap=True)
        elif self._live is not None:
            self._live.refresh()

    def show(self, row: RolloutRow) -> None:
        """Show a refinement in the view."""
        if self.is_live and self._lines:
            self.view.example = folded(row)

    def say(self, text: str) -> None:
        """Print a line, in yellow if it begins with `warning: `. What a terminal would obey in it is escaped."""
        is_warning = text.startswith(WARNING)
        if is_warning or not self._quiet:
            self.console.print(Text(safe(text), "yellow" if is_warning else ""), highlight=False, soft_wrap=True)

    def took(self, what: str, seconds: float) -> None:
        """Print the time of work outside the steps, where it was not shown while it ran."""
        if not self.is_live and self._lines:
            self.say(f"{what}: {seconds:.1f} s")

    def notices(self, text: str) -> bool:
        """Show an answer to a request to end the run; return False if there is no view to show it in.

        It is called in a signal's handler, so it only remembers the text.
        """
        self.view.notice = text.strip()
        return self._live is not None and sys.stderr.isatty()

    def stop(self) -> None:
        """Take the view away."""
        live, self._live = self._live, None
        if live is not None:
            while self._led:
                handler, stream = self._led.pop()
                handler.setStream(stream)
            live.stop()

    def leave(self) -> None:
        """Take the view away after the last step, and leave the line of that step in its place."""
        self._within = False
        self.stop()
        if self._last is not None and self.is_live:
            self.console.print(self._last, highlight=False, soft_wrap=True)
            self._last = None

    def _start(self) -> None:
        if self.is_live and self._live is None:
            self._live = Live(
                self.view,
                console=self.console,
                refresh_per_second=FRAMES,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),
                vertical_overflow="crop",
            )
            self._live.start(refresh=True)
        if self._live is not None:
            self._lead_logs()

    def _lead_logs(self) -> None:
        """Let handlers of logging that write to the terminal print above the view, which they would write across.

        While the view is there, `sys.stdout` and `sys.stderr` are proxies that print above it. Handlers that were made
        before hold the files behind them.
        """
        proxies = {
            getattr(stream, "rich_proxied_file", None): stream
            for stream in (sys.stdout, sys.stderr)
            if hasattr(stream, "rich_proxied_file")
        }
        known = logging.root.manager.loggerDict.values()
        for logger in (logging.root, *(one for one in known if isinstance(one, logging.Logger))):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in proxies:
                    self._led.append((handler, handler.stream))
                    handler.setStream(proxies[handler.stream])

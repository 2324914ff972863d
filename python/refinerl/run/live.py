"""The live view of a run on a terminal: progress, the latest metrics with their curves, and a refinement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from refinerl.data.terminal import duration, safe
from refinerl.run.step_line import PARTS, Part, value

BAR, CURVE = 40, 24
"""Columns that a progress bar and a curve take at most."""
LEAST = 6
"""Columns that are left to a curve and the space around it."""
LABEL, VALUE = 15, 14
"""Columns of a metric's label and of its value."""
CELL = 40
"""Columns for which a metric has a place of its own beside others."""
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class Phase:
    """A phase of a step, or other work, that runs."""

    label: str
    started: float
    total: float | None = None
    done: float = 0.0


@dataclass
class View:
    """The state of a run, drawn as lines that are no longer than the terminal is wide, and no more than it is high."""

    steps: int
    now: Callable[[], float] = time.monotonic
    step: int = 0
    """The step that runs."""
    finished: int = 0
    ends: float | None = None
    """The time at which the run is estimated to end."""
    phase: Phase | None = None
    values: dict[Part, str] = field(default_factory=dict)
    """The last value of each metric that has had one."""
    fresh: set[Part] = field(default_factory=set)
    """Metrics whose value is of the last finished step."""
    curves: dict[Part, list[float]] = field(default_factory=dict)
    example: Sequence[Text] = ()
    """The last refinement, folded."""
    notice: str = ""
    """The answer to a request to end the run."""

    def log(self, row: Mapping[str, float | None], step: int, left: float | None) -> None:
        """Take the metrics of a finished step.

        Args:
            row: by metric name; NaN or None where there is no value.
            step: its number.
            left: seconds until the run's end; None if they are not known.
        """
        known = {name: number for name, number in row.items() if number is not None and math.isfinite(number)}
        told = {part: text for part in PARTS if (text := value(known, part))}
        for part in told:  # before the values, since another thread draws
            self.curves.setdefault(part, []).append(known[part.metric])
        self.values, self.fresh = self.values | told, set(told)
        self.finished = step
        self.ends = None if left is None else self.now() + left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines that the terminal has room for; its last column and line stay free."""
        yield from self.lines(options.max_width - 1, options.size.height - 1)

    def lines(self, width: int, height: int) -> list[Text]:
        """Draw at most `height` lines of at most `width` columns; where there are fewer, metrics come first."""
        head = list(self._progress(width))
        notice = [Text(safe(part), style="yellow") for part in self.notice.split("; ") if part]
        room = max(0, height - len(head) - len(notice))
        metrics = list(self._metrics(width))[: max(0, room - 1)]
        room -= len(metrics) + bool(metrics)
        example = [line.copy() for line in self.example[: max(0, room - 1)]]
        blank = Text("")
        lines = [*head, *([blank] if metrics else []), *metrics, *([blank] if example else []), *example, *notice]
        for line in lines:
            line.no_wrap = True
            line.truncate(width, overflow="ellipsis")
        return lines[:height]

    def _progress(self, width: int) -> Iterator[Text]:
        phase, ends = self.phase, self.ends  # another thread may change them
        name = f"step {self.step}/{self.steps}"
        label = max(len(name), LABEL)
        bar = min(BAR, width - label - 25)
        if self.step:
            left = (
                "" if ends is None or self.finished == self.steps else f"{duration(max(0.0, ends - self.now()))} left"
            )
            yield _row(name.ljust(label), self.finished / self.steps, bar, left, "bold")
        if phase is None:
            yield Text("")
            return
        took = duration(self.now() - phase.started)
        if self.step:
            share = min(1.0, phase.done / phase.total) if phase.total else None
            yield _row(safe(phase.label)[:label].ljust(label), share, bar, took, "")
        else:
            work = Text(safe(phase.label))
            work.truncate(max(0, width - len(took) - 2), overflow="ellipsis")
            yield work.append(f"  {took}")

    def _metrics(self, width: int) -> Iterator[Text]:
        """Draw the metrics in one to three columns, in the order of the step's line."""
        columns = min(3, max(1, (width + 1) // CELL))
        each = (width - 2 * (columns - 1)) // columns
        cells = [self._cell(part, each) for part in PARTS if part in self.values]
        for start in range(0, len(cells), columns):
            yield Text("  ").join(cells[start : start + columns])

    def _cell(self, part: Part, width: int) -> Text:
        label = max(1, min(LABEL, width - VALUE - 1))
        text = self.values[part]
        if len(text) > width - label - LEAST:
            text = text.partition(" (")[0]  # the curve says more than the ends of an interval
        curve = _curve(self.curves[part], min(CURVE, width - label - max(VALUE, len(text)) - 2))
        weight = "bold" if part in self.fresh else "dim"
        cell = Text.assemble(part.label[:label].ljust(label), " ", (text.rjust(VALUE), weight), " ")
        cell.append(curve, style="cyan")
        cell.pad_right(max(0, width - cell.cell_len))
        return cell


def _row(label: str, share: float | None, bar: int, note: str, style: str) -> Text:
    """Draw a label, a bar with its percentage if the share is known, and a note."""
    text = Text.assemble((label, style), "  ")
    if bar > 0:
        done = 0 if share is None else round(share * bar)
        rest = "─" * (bar - done) if share is not None else " " * bar
        text.append("━" * done, style="green").append(rest, style="dim")
    percent = "" if share is None else f"{share:.0%}"
    return text.append(f" {percent:>4}  {note}")


def _curve(values: Sequence[float], width: int) -> str:
    """Draw numbers as blocks between their least and their greatest; each block is the mean of its share of them.

    >>> _curve([0.0, 1.0, 2.0, 3.0], 4), _curve([0.0, 0.0, 1.0, 1.0], 2), _curve([5.0], 3), _curve([], 3)
    ('▁▃▆█', '▁█', '▄', '')
    """
    count = min(width, len(values))
    if count < 1:
        return ""
    ends = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, high = min(means), max(means)
    if low == high:
        return BLOCKS[3] * count
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)

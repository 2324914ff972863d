"""The live view of the demo's arms: a growing picture and a table; plain lines where nothing can be redrawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from refinerl.study.demo.arm import HELD_OUT, Arm
from refinerl.study.demo.picture import FRAME, STYLES, picture

WIDEST = 100
"""Columns that the view takes at most."""
TALLEST, SHORTEST = 10, 3
"""Lines of the picture's plot; it is left out where fewer than `SHORTEST` fit."""


@dataclass(frozen=True)
class View:
    """One frame of the live view. It fits the terminal's width and height of the moment when it is drawn."""

    title: str
    arms: Sequence[Arm]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts; without the picture if the terminal is too low for it."""
        options = options.update(width=min(options.max_width, WIDEST))
        table = numbers(self.arms)
        head, caption = Text(self.title, style="bold"), Text(CAPTION, style="dim")
        yield from (head, times(self.arms))
        taken = sum(len(console.render_lines(part, options)) for part in (head, caption, table))
        room = options.size.height - taken - FRAME - 4  # times, two blank lines, and one that the cursor needs
        if room >= SHORTEST:
            curves = {arm.name: arm.curve for arm in self.arms}
            yield from ("", caption)
            yield picture(curves, self.arms[0].steps, options.max_width, min(room, TALLEST))
        yield from ("", table)


CAPTION = "Held-out success: the share of new problems that are solved"


def times(arms: Sequence[Arm]) -> Text:
    """Describe the time that passed and the time that is left."""
    left = [arm.left for arm in arms]
    known = [seconds for seconds in left if seconds is not None]
    rest = f"about {clock(max(known))} left" if len(known) == len(left) else "loading the model"
    return Text(f"{clock(max(arm.seconds for arm in arms))} passed, {rest}", style="dim")


def numbers(arms: Sequence[Arm]) -> Table:
    """Make the table of the arms' latest numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for arm, (mark, style) in zip(arms, STYLES, strict=True):
        table.add_column(Text(f"{mark} {arm.name}", style=style), justify="right", no_wrap=True, min_width=13)
    table.add_row("step", *(f"{arm.step} of {arm.steps}" for arm in arms))
    table.add_row("held-out success", *(change(arm) for arm in arms))
    for label, metric, shape in AVERAGED:
        table.add_row(label, *(form(arm.recent(metric), shape) for arm in arms))
    table.add_row("time left", *map(remaining, arms))
    return table


AVERAGED = (
    ("reward", "reward/mean", "{:+.2f}"),
    ("improvement ratio", "refiner/improved_ratio", "{:.0%}"),
    ("CE on ỹ, nats per token", "constraint/ce", "{:.3f}"),
)
"""Rows of the table that are means over the last `WINDOW` steps: label, metric, form."""


def change(arm: Arm) -> str:
    """Describe held-out success before training and at the last evaluation."""
    values = [f"{100 * value:.0f}" for _, value in arm.curve]
    return " → ".join([values[0], *values[1:][-1:]]) + " %" if values else "–"


def remaining(arm: Arm) -> str:
    """Describe the time that an arm still needs."""
    if not arm.running:
        return "done"
    return "saving" if arm.step == arm.steps else clock(arm.left)


def form(value: float | None, shape: str) -> str:
    """Format a number; a dash if there is none."""
    return "–" if value is None else shape.format(value)


def clock(seconds: float | None) -> str:
    """Format a time.

    >>> clock(75.4)
    '1:15'
    """
    return "–" if seconds is None else f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def lines(arm: Arm, said: int) -> Iterator[str]:
    """Describe each evaluation among the rows after the first `said` in a line."""
    for row in arm.rows[said:]:
        if row.get(HELD_OUT) is not None:
            yield f"{arm.name:7} step {row['step']:2}/{arm.steps}  held out {row[HELD_OUT]:4.0%}{_rest(row)}"


def _rest(row: Mapping[str, Any]) -> str:
    shown = (("reward", "reward/mean", "{:+.2f}"), ("improved", *AVERAGED[1][1:]), ("CE", *AVERAGED[2][1:]))
    return "".join(f"  {word} {form(row[name], shape)}" for word, name, shape in shown if row.get(name) is not None)

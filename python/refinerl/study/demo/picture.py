"""Curves of the share of solved problems over steps, drawn with braille dots and a mark for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.text import Text

STYLES = (("○", "yellow"), ("●", "bright_cyan"))
"""Mark and colour of each curve, in their order; the marks tell them apart without colours."""
AXIS, FRAME = 8, 2
"""Columns of the labels at the left; lines of the axis below the plot."""
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character: a cell has four rows of two dots."""


def picture(curves: Mapping[str, Sequence[tuple[int, float]]], steps: int, width: int, height: int) -> Text:
    """Draw (step, share) points, joined by lines, over steps 0 … `steps` and shares 0 … 1.

    Args:
        curves: at most two, by name. A curve may be empty.
        steps: the right end of the axis, at least 1.
        width: columns, at least 24. No line is longer.
        height: lines of the plot, at least 3; two more hold the axis.
    """
    wide, high = width - AXIS - 2, height
    cells: dict[tuple[int, int], tuple[int | str, str]] = {}

    def place(step: int, value: float) -> tuple[int, int]:
        """Find the dot (x from the left, y from the top) of a point."""
        return round(step / steps * (2 * wide - 1)), round((1 - value) * (4 * high - 1))

    placed = [[place(*point) for point in points] for points in curves.values()]
    for (_, style), points in zip(STYLES, placed, strict=False):
        for (x0, y0), (x1, y1) in pairwise(points):
            count = max(abs(x1 - x0), abs(y1 - y0), 1)
            for i in range(count + 1):
                x, y = x0 + round((x1 - x0) * i / count), y0 + round((y1 - y0) * i / count)
                held = cells.get((x // 2, y // 4), (0, style))[0]
                cells[x // 2, y // 4] = (int(held) | DOTS[y % 4][x % 2], style)
    for (mark, style), points in zip(STYLES, placed, strict=False):
        cells |= {(x // 2, y // 4): (mark, f"bold {style}") for x, y in points}

    lines = []
    for row in range(high):
        label = {0: "100 %", high // 2: "50 %", high - 1: "0 %"}.get(row, "")
        line = Text(f"{label:>{AXIS - 1}} ┤", style="dim")
        for column in range(wide):
            shape, style = cells.get((column, row), (" ", ""))
            line.append(chr(0x2800 + shape) if isinstance(shape, int) else shape, style=f"not dim {style}")
        line.rstrip()
        lines.append(line)
    axis = f"step{0:>{AXIS - 3}}" + f"{steps // 2}".center(wide - 2).rstrip()
    lines.append(Text(" " * (AXIS - 1) + " └" + "─" * wide, style="dim"))
    lines.append(Text(axis.ljust(AXIS + 2 + wide - len(str(steps))) + str(steps), style="dim"))
    return Text("\n", end="").join(lines)

"""Drawings in files, with matplotlib: panels of curves, and SVG and PNG of the same drawing."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refinerl.data.files import replacing
from refinerl.data.terminal import visible
from refinerl.report.figures.series import Band
from refinerl.report.missing import find

LINES = ("-", "--", ":", "-.")
SETTINGS = {
    "text.parse_math": False,  # a name may hold dollars
    "svg.hashsalt": "refinerl",  # the same drawing is the same file
    "axes.unicode_minus": True,
}
DOTS = 120
"""Pixels per inch of a PNG."""


@contextmanager
def canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield a figure of `rows` × `columns` panels and its (rows, columns) array of axes; close it afterwards.

    Args:
        size: width and height in inches; None: 6.4 × 4 for each panel.

    Raises:
        MissingError: matplotlib is not installed.
    """
    matplotlib = find("matplotlib", "figures")
    matplotlib.use("Agg")
    plots = importlib.import_module("matplotlib.pyplot")
    with matplotlib.rc_context(SETTINGS):
        drawn, axes = plots.subplots(
            rows, columns, figsize=size or (6.4 * columns, 4.0 * rows), squeeze=False, constrained_layout=True
        )
        try:
            yield drawn, axes
        finally:
            plots.close(drawn)


def panel(
    axis: Any,
    label: str,
    bands: Mapping[str, Band],
    order: Sequence[str],
    *,
    marked: bool = False,
    legend: bool = True,
) -> None:
    """Draw the curves of one quantity, with their bands.

    Args:
        axis: matplotlib's.
        label: of the y axis.
        bands: the curves by name.
        order: all names, also those without this curve: a name has the same colour in every panel.
        marked: mark the points.
        legend: name the curves in the panel.
    """
    for number, name in enumerate(order):
        if name not in bands:
            continue
        band, colour = bands[name], f"C{number % 10}"
        seeds = "" if band.runs == 1 else f" ({band.runs} seeds)"
        line = LINES[number // 10 % len(LINES)]
        dots = "o" if marked or len(band.steps) == 1 else None
        axis.plot(band.steps, band.means, line, label=plain(name) + seeds, color=colour, lw=1.8, marker=dots, ms=3)
        if band.runs > 1:
            axis.fill_between(band.steps, band.lows, band.highs, color=colour, alpha=0.15, lw=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("step")
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    if legend:
        axis.legend(fontsize=8)


def legend_beside(drawn: Any, axes: Iterable[Any]) -> None:
    """Name the curves of some panels once, at the right of them: in a panel many names hide the curves."""
    named: dict[str, Any] = {}
    for axis in axes:
        for line, name in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(name, line)
    drawn.legend(named.values(), named.keys(), loc="outside right upper", fontsize=8)


def plain(name: str, most: int = 60) -> str:
    r"""Make a name fit for a legend: one line of visible characters, that does not begin with an underscore.

    >>> plain("_a\n" + "b" * 70)
    ' _a\\nbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…'
    """
    text = "".join(map(visible, name[: most + 1]))
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return f" {text}" if text.startswith("_") else text


def save(drawn: Any, place: Path) -> str:
    """Write PLACE.svg and PLACE.png, each whole or not at all; return the SVG text.

    Raises:
        OSError: a file cannot be written.
    """
    text = io.StringIO()
    drawn.savefig(text, format="svg", metadata={"Date": None})
    with replacing(place.with_name(f"{place.name}.svg")) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    save_png(drawn, place.with_name(f"{place.name}.png"))
    return text.getvalue()


def save_png(drawn: Any, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as partial:
        drawn.savefig(partial, format="png", dpi=DOTS)

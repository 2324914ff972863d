"""The figures of a study, as SVG and PNG: the paper's figures 4, 5 and 7, and held-out success."""

from __future__ import annotations

import importlib
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinerl.data.files import replacing
from refinerl.study.measures import CE, held_out, mean, source
from refinerl.study.missing import find
from refinerl.study.results import Result

SMOOTHED = 7
"""Steps over which a curve of training metrics is averaged."""

LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Panel:
    """A metric in a figure."""

    metric: str
    """Empty for held-out success."""
    label: str


@dataclass(frozen=True)
class Figure:
    """A figure: the name of its files, a title, its panels."""

    name: str
    title: str
    panels: tuple[Panel, ...]


FIGURES = (
    Figure("held-out", "Held-out success", (Panel("", "share of held-out problems solved"),)),
    Figure("figure-4-reward", "Reward (the paper's figure 4)", (Panel("reward/mean", "mean training reward"),)),
    Figure(
        "figure-5-divergence",
        "Divergence and constraint (the paper's figure 5)",
        (
            Panel("policy/kl_to_reference", "KL to the reference, nats per token"),
            Panel(CE, "CE on accepted ỹ, nats per token"),
        ),
    ),
    Figure(
        "figure-7-improvement",
        "Improvement ratio (the paper's figure 7)",
        (Panel("refiner/improved_ratio", "share of responses that the refiner improved"),),
    ),
)

CAPTION = f"Lines are means over seeds, bands their range. Training metrics are means over the last {SMOOTHED} steps."
"""The text under the figures."""


@dataclass(frozen=True)
class Band:
    """An arm's curve: mean and range over its seeds, at the steps that every seed has."""

    steps: list[int]
    means: list[float]
    lows: list[float]
    highs: list[float]
    seeds: int


def draw(results: Sequence[Result], folder: Path) -> dict[str, str]:
    """Write figures/NAME.svg and .png for each figure that the runs have a metric of.

    Returns:
        The SVG text of each figure by its title.

    Raises:
        MissingError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    plots = pyplot()
    folder.mkdir(exist_ok=True)
    drawn = {}
    for figure in FIGURES:
        curves = {panel: bands(results, panel.metric) for panel in figure.panels}
        shown = [panel for panel in figure.panels if curves[panel]]
        if not shown:
            continue
        canvas, axes = plots.subplots(
            1, len(shown), figsize=(6.4 * len(shown), 4), squeeze=False, constrained_layout=True
        )
        for axis, panel in zip(axes[0], shown, strict=True):
            _panel(axis, panel, curves[panel], list(dict.fromkeys(result.arm for result in results)))
        canvas.suptitle(figure.title)
        drawn[figure.title] = save(canvas, folder / figure.name)
        plots.close(canvas)
    return drawn


def bands(results: Sequence[Result], metric: str) -> dict[str, Band]:
    """Return the curves of the arms that have a metric; an empty `metric` is held-out success."""
    found = {}
    for arm in dict.fromkeys(result.arm for result in results):
        curves = [dict(curve(result, metric)) for result in results if result.arm == arm]
        curves = [points for points in curves if points]
        steps = sorted(set.intersection(*(set(points) for points in curves))) if curves else []
        if steps:
            values = [[points[step] for points in curves] for step in steps]
            means = [statistics.fmean(some) for some in values]
            found[arm] = Band(steps, means, list(map(min, values)), list(map(max, values)), len(curves))
    return found


def curve(result: Result, metric: str) -> list[tuple[int, float]]:
    """Return the (step, value) points of a run's curve, smoothed unless it is that of held-out success."""
    if not metric:
        return held_out(result.rows)
    rows = [row for row in result.rows if row["step"] > 0]
    metric = source(rows, metric)
    smooth = [(row["step"], mean(rows[max(0, i - SMOOTHED + 1) : i + 1], metric)) for i, row in enumerate(rows)]
    return [(step, value) for step, value in smooth if value is not None]


def _panel(axis: Any, panel: Panel, curves: Mapping[str, Band], arms: Sequence[str]) -> None:
    for number, arm in enumerate(arms):  # an arm has the same colour in every figure
        if arm not in curves:
            continue
        band, colour = curves[arm], f"C{number % 10}"
        label = f"{arm} ({band.seeds} seed{'' if band.seeds == 1 else 's'})".replace("$", r"\$")
        line, mark = LINES[number // 10 % len(LINES)], None if panel.metric else "o"
        axis.plot(band.steps, band.means, line, label=label, color=colour, lw=1.8, marker=mark, ms=3)
        axis.fill_between(band.steps, band.lows, band.highs, color=colour, alpha=0.15, lw=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if not panel.metric and all(0 <= value <= 1 for band in curves.values() for value in (*band.lows, *band.highs)):
        axis.set_ylim(0, 1)
    axis.set_xlabel("step")
    axis.set_ylabel(panel.label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def save(canvas: Any, place: Path) -> str:
    """Write PLACE.svg and PLACE.png, each whole or not at all; return the SVG text.

    Raises:
        OSError: a file cannot be written.
    """
    for suffix in (".svg", ".png"):
        with replacing(place.with_name(place.name + suffix)) as partial:
            canvas.savefig(partial, format=suffix[1:], dpi=120, metadata={"Date": None} if suffix == ".svg" else {})
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def pyplot() -> Any:
    """Import matplotlib for files, not for a screen.

    Raises:
        MissingError: it is not installed.
    """
    matplotlib = find("matplotlib", "the figures")
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")

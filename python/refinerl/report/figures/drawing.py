"""The paper's figures 4 to 7, and held-out success, as SVG and PNG, from runs and studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refinerl.errors import UserError
from refinerl.report.figures import example, folders, heat_map, plots
from refinerl.report.figures.folders import Found
from refinerl.report.figures.series import SMOOTHED, Band, Series, band, curve


@dataclass(frozen=True)
class Panel:
    """A quantity in a figure."""

    label: str
    metrics: tuple[str, ...]
    """Its names; of each run the first is drawn that it has."""


HELD_OUT = Panel("held-out success", ("evaluate/pass@1", "evaluate/reward"))
REWARD = Panel("mean training reward", ("reward/mean",))
KL = Panel("KL to the reference, nats per token", ("policy/kl_to_reference",))
CE = Panel("CE on accepted ỹ, nats per token", ("refiner/ce", "constraint/ce"))
IMPROVED = Panel("share of responses that the refiner improved", ("refiner/improved_ratio",))
SPREAD = Panel("spread of rewards in a group", ("reward/group_std",))


@dataclass(frozen=True)
class Figure:
    """A figure: the name of its files, a title, its panels."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    lead: Panel
    """The panel without which it is not drawn."""


FIGURES = (
    Figure("held-out", "Held-out success", (HELD_OUT,), HELD_OUT),
    Figure("figure-4", "Reward, divergence and constraint (the paper's figure 4)", (REWARD, KL, CE), REWARD),
    Figure("figure-5", "Reward and improvement ratio (the paper's figure 5)", (REWARD, IMPROVED), IMPROVED),
    Figure("figure-7", "Reward and spread by β (the paper's figure 7)", (REWARD, SPREAD), SPREAD),
)
"""The figures that consist of curves. Figure 6 is `heat_map`'s."""

NAMES = 4
"""Most curves that are named in each panel; more are named once, beside the panels."""

CAPTION = (
    f"Lines are means over seeds, bands their range. Training metrics are means over the last {SMOOTHED} steps. Figure "
    "7 has the runs with the dynamic constraint only, if there are any, and those of its tuning, if β was tuned."
)
"""The text under the figures."""
HEAT_MAP = "Cross-entropy of each token of a refinement (the paper's figure 6)"
WITHOUT_REFINER = "no run has a refiner (constraint.name=dynamic, or refiner.probe=true)"
WITHOUT_COSTS = "no accepted refinement has the logprobs of its tokens (telemetry.token_costs)"


@dataclass
class Written:
    """The figures that were written."""

    files: list[Path] = field(default_factory=list)
    drawings: dict[str, str] = field(default_factory=dict)
    """The SVG text of each figure by its title."""
    notes: list[str] = field(default_factory=list)
    """Sentences on figures and panels that are left out."""


def write(runs: Sequence[Path], folder: Path) -> Written:
    """Write the figures of runs and studies into a folder (`draw`).

    Raises:
        MissingError: matplotlib is not installed.
        UserError: a folder is neither a run's nor a study's, a file is damaged, or the folder cannot be written.
    """
    found = folders.find(runs)
    try:
        return draw(found, folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --figures") from error


def draw(found: Found, folder: Path) -> Written:
    """Write FOLDER/NAME.svg and .png for each figure that the runs have the numbers of.

    Raises:
        MissingError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    written = Written(notes=list(found.notes))
    for figure in FIGURES:
        series = by_beta(found) if figure.name == "figure-7" else found.series
        _draw(figure, series, folder, written)
    _draw_heat_map(found, folder, written)
    return written


def by_beta(found: Found) -> tuple[Series, ...]:
    """Return the series of figure 7: those under the dynamic constraint, of the grids if β was tuned, else all."""
    points = [series for series in found.grids if _is_dynamic(series) and "β = " in series.name]
    dynamic = [series for series in found.series if _is_dynamic(series)]
    if points:
        return tuple(points)
    return tuple(Series(f"{series.name}, β = {_beta(series):g}", series.runs) for series in dynamic) or found.series


def _is_dynamic(series: Series) -> bool:
    constraint = series.runs[0].config.get("constraint")
    return isinstance(constraint, dict) and constraint.get("name") == "dynamic" and "beta" in constraint


def _beta(series: Series) -> float:
    return float(series.runs[0].config["constraint"]["beta"])


def _draw(figure: Figure, series: Sequence[Series], folder: Path, written: Written) -> None:
    curves = {panel: bands_of(series, panel.metrics) for panel in figure.panels}
    missing = [panel for panel in figure.panels if not curves[panel]]
    for panel in missing:
        what = "left out" if panel == figure.lead else f"drawn without {panel.label.split(',')[0]}"
        written.notes.append(f"{figure.name} is {what}: no run has a value of {' or '.join(panel.metrics)}")
        if panel == figure.lead:
            return
    shown = [panel for panel in figure.panels if panel not in missing]
    folder.mkdir(parents=True, exist_ok=True)
    beside = len(series) > NAMES
    with plots.canvas(1, len(shown)) as (drawn, axes):
        for axis, panel in zip(axes[0], shown, strict=True):
            bands, names = curves[panel], [one.name for one in series]
            plots.panel(axis, panel.label, bands, names, marked=panel == HELD_OUT, legend=not beside)
            if panel == HELD_OUT and all(0 <= end <= 1 for b in bands.values() for end in (*b.lows, *b.highs)):
                axis.set_ylim(0, 1)
        if beside:
            plots.legend_beside(drawn, axes[0])
        drawn.suptitle(figure.title)
        _note(written, figure.title, folder / figure.name, plots.save(drawn, folder / figure.name))


def bands_of(series: Iterable[Series], metrics: Sequence[str]) -> dict[str, Band]:
    """Return the curves of the series that have a metric, by name."""
    found = {one.name: band(one, metrics) for one in series}
    return {name: curve for name, curve in found.items() if curve is not None}


def _note(written: Written, title: str, place: Path, drawing: str) -> None:
    written.files += [place.with_name(f"{place.name}{suffix}") for suffix in (".svg", ".png")]
    written.drawings[title] = drawing


def _draw_heat_map(found: Found, folder: Path, written: Written) -> None:
    refined = [one for one in found.series if curve(one.runs[0].rows, IMPROVED.metrics)]
    examples = (example.best(one.runs[0].folder, one.name) for one in refined)
    shown = next((one for one in examples if one is not None), None)
    if shown is None:
        written.notes.append(f"figure-6 is left out: {WITHOUT_COSTS if refined else WITHOUT_REFINER}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with heat_map.drawn(shown) as drawn:
        _note(written, HEAT_MAP, folder / "figure-6", plots.save(drawn, folder / "figure-6"))


OVERVIEW = (HELD_OUT, REWARD, KL, CE, IMPROVED, SPREAD)
"""The panels of a run's overview."""


def has_curves(series: Sequence[Series]) -> bool:
    """Return True if there is something to draw in an overview."""
    return any(bands_of(series, panel.metrics) for panel in OVERVIEW)


def overview(series: Sequence[Series], path: Path) -> bool:
    """Write the curves of a run as one PNG; return False, and write nothing, if there are none.

    Raises:
        MissingError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    curves = {panel: bands for panel in OVERVIEW if (bands := bands_of(series, panel.metrics))}
    if not curves:
        return False
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    with plots.canvas(rows, columns, (4.2 * columns, 2.8 * rows)) as (drawn, axes):
        places = list(axes.flat)
        for axis, (panel, bands) in zip(places, curves.items(), strict=False):
            plots.panel(axis, panel.label, bands, [one.name for one in series], marked=panel == HELD_OUT)
            axis.set_ylabel("")
            axis.set_title(panel.label, fontsize=9)
            axis.get_legend().set_visible(len(series) > 1)
        for axis in places[len(curves) :]:
            axis.set_axis_off()
        plots.save_png(drawn, path)
    return True

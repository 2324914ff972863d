"""The page of a study: verdicts, figures and table in one HTML file, with links to the runs' reports."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from refinerl.report.export import save
from refinerl.report.figures.drawing import CAPTION
from refinerl.report.missing import find
from refinerl.report.page import write_page as write_report
from refinerl.study.results import Result
from refinerl.study.table import BLOCKS, COMPARED, EXPLAINED, FEWEST, Table


def write_page(
    output: Path, table: Table, results: Sequence[Result], figures: Mapping[str, str], about: str = ""
) -> Path:
    """Write OUTPUT/index.html, whole or not at all; return its path. It loads nothing from elsewhere.

    The runs that lack a report.html get one.

    Args:
        output: the study's folder.
        table: the study's.
        results: the finished runs, which are linked.
        figures: SVG text by title.
        about: a text under the title.

    Raises:
        MissingError: jinja2 is not installed.
        UserError: a file of a run is damaged, or a file cannot be written.
    """
    jinja2 = find("jinja2", "pages of studies")
    _write_reports(results)
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (resources.files("refinerl.study") / "page.html").read_text(encoding="utf-8")
    )
    shown = {name for cells in table.arms.values() for name in cells}
    blocks = [(title, {n: text for n, text in columns.items() if n in shown}) for title, columns in BLOCKS.items()]
    text = template.render(
        record=table.record,
        table=table,
        about=about,
        blocks=[(title, columns) for title, columns in blocks if columns],
        compared=COMPARED,
        explained=EXPLAINED,
        fewest=FEWEST,
        figures={title: base64.b64encode(svg.encode()).decode() for title, svg in figures.items()},
        caption=CAPTION,
        runs=[(result.arm, result.seed, _link(output, result.folder)) for result in results],
    )
    save(output / "index.html", text)
    return output / "index.html"


def _write_reports(results: Sequence[Result]) -> None:
    """Write report.html into the folder of each run that lacks it.

    Raises:
        UserError: a file of a run is damaged, or cannot be written.
    """
    for result in results:
        if not (result.folder / "report.html").exists():
            write_report(result.folder)


def _link(output: Path, folder: Path) -> str:
    """Return the address of a run's report relative to the page; empty if there is none."""
    report = folder / "report.html"
    return quote(report.relative_to(output).as_posix()) if report.exists() else ""

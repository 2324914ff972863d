"""The page of runs: data, texts, styles and scripts in one file."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from refinerl import __version__
from refinerl.errors import UserError
from refinerl.report.export import save
from refinerl.report.missing import find
from refinerl.report.page import sampling
from refinerl.report.page.curves import columns, sections, sums, thinned
from refinerl.report.page.folders import Folder, read_folder
from refinerl.report.page.sampling import Chosen, dump
from refinerl.report.page.verdict import PHASES, verdict

STYLES = ("uplot/uPlot.min.css", "page.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "data.js", "curves.js", "stacks.js", "rollout.js", "explorer.js", "main.js")
"""Files of the page, in the order in which the browser reads them."""
POINTS = 4_000
"""Steps of all runs that the curves have; those of a run with more are thinned out."""


def write_page(runs: Path | Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of one or several runs, whole or not at all; return its path.

    The default `output` is RUN/report.html for one run, and report.html in the working directory for several.

    Raises:
        UserError: as `render`, or the file cannot be written.
    """
    folders = [runs] if isinstance(runs, Path) else list(runs)
    text = render(folders)
    output = output or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    save(output, text)
    return output


def render(runs: Sequence[Path], more: Sequence[str] = ()) -> str:
    """Return the page of one or several runs. It loads nothing from elsewhere, and says what a run lacks.

    Args:
        runs: their folders.
        more: scripts that run after the page's own. They may talk to the server that serves the page, and to no other.

    Raises:
        UserError: a folder is not a run's or has another schema, a line is damaged that is not the last of its file, or
            jinja2 is not installed.
    """
    if not runs:
        raise UserError("a report needs the folder of at least one run")
    folders = [read_folder(path) for path in runs]
    jinja2 = find("jinja2", "pages")
    chosen = [Chosen(folder, sampling.MOST // len(folders), sampling.SIZE // len(folders)) for folder in folders]
    scripts = [*(_asset(name) for name in SCRIPTS), *more]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    labels = _labels(folders)
    page: str = environment.from_string(_asset("page.html")).render(
        title=" · ".join(dict.fromkeys(folder.name for folder in folders)),
        runs=[_words(*part, _most(folders)) for part in zip(folders, chosen, labels, strict=True)],
        data=dump(_data(folders, chosen, labels)),
        rollouts=[found.json for found in chosen],
        styles=[_asset(name) for name in STYLES],
        scripts=scripts,
        hashes=hashes,
        version=__version__,
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _data(folders: Sequence[Folder], chosen: Sequence[Chosen], labels: Sequence[str]) -> dict[str, Any]:
    """Return what the scripts read, rollouts aside."""
    shown = [thinned(folder.metrics, _most(folders)) for folder in folders]
    return {
        "sections": sections(row for folder in folders for row in folder.metrics),
        "phases": PHASES,
        "runs": [
            {
                "name": folder.name,
                "label": label,
                "steps": [folder.metrics[i]["step"] for i in places],
                "tokens": _at(places, sums(folder.metrics, "tokens/step")),
                "seconds": _at(places, sums(folder.metrics, "time/step")),
                "metrics": columns([folder.metrics[i] for i in places]),
                "outcomes": found.outcomes.table(),
                "rollouts": found.total,
            }
            for folder, found, label, places in zip(folders, chosen, labels, shown, strict=True)
        ],
    }


def _most(folders: Sequence[Folder]) -> int:
    """Return the largest number of steps that the curves of a run have."""
    return max(300, POINTS // len(folders))


def _at(places: Sequence[int], values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [values[i] for i in places]


def _words(folder: Folder, chosen: Chosen, label: str, most: int) -> dict[str, Any]:
    """Return what the page says of a run."""
    notes = list(folder.notes)
    held = len(chosen.rows)
    if held < chosen.total:
        notes.append(
            f"The page holds {held:,} of {chosen.total:,} rollouts: of every step first the groups with heat maps, "
            "then those with the largest reward gain. The others are in rollouts/."
        )
    if len(folder.metrics) > most:
        notes.append(f"The curves show about {most:,} of {len(folder.metrics):,} steps. metrics.jsonl has them all.")
    outcomes = chosen.outcomes
    said = verdict(folder.metrics, improved=outcomes.improved, probed=outcomes.probed)
    done = max((row["step"] for row in folder.metrics), default=0)
    return {
        "label": label,
        "subject": folder.subject,
        "steps": f"{done:,} step{'' if done == 1 else 's'}"
        + (f" of {folder.planned:,}" if folder.planned and folder.planned > done else ""),
        "verdict": said,
        "notes": notes,
        "config": folder.config,
    }


def _labels(folders: Sequence[Folder]) -> list[str]:
    """Name the runs apart: by their seeds where they share a name, and by their folders where they share that too."""
    shared = Counter(folder.name for folder in folders)
    labels = [f"{f.name} · seed {f.seed}" if shared[f.name] > 1 else f.name for f in folders]
    repeated = Counter(labels)
    return [
        f"{folder.name} · {folder.path}" if repeated[label] > 1 else label
        for folder, label in zip(folders, labels, strict=True)
    ]


def _asset(name: str) -> str:
    return resources.files("refinerl.report.page").joinpath(name).read_text(encoding="utf-8")

"""A run's folder as one HTML page without anything from elsewhere: curves, and rewrites to read as diffs."""

from __future__ import annotations

import importlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from refinerl.alignment import align
from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.report.export import rollouts, write
from refinerl.report.rows import readable
from refinerl.report.summary import runs

CURVES = {
    "reward/mean": "mean reward",
    "policy/kl_to_reference": "KL to the reference, nats per token",
    "refiner/improved_ratio": "improvement ratio",
    "constraint/ce": "cross-entropy on accepted ỹ, nats",
    "reward/group_std": "spread of rewards in a group",
    "policy/entropy": "entropy, nats per token",
    "completion/length": "tokens of a response",
    "time/step": "seconds per step",
}
"""The curves of the paper's figures 4, 5 and 7, and what a run costs."""

STEPS, SAMPLES = 12, 6
"""Steps that the page shows, spread over the run, and responses of each: those whose refinement gained most."""

WIDTH, HEIGHT, MARGIN = 360, 150, 6


@dataclass(frozen=True)
class Curve:
    """A metric over steps, in the coordinates of its drawing."""

    title: str
    name: str
    low: str
    high: str
    last: str
    lines: tuple[str, ...]
    """`points` of polylines; a step without a value breaks the line."""
    dots: tuple[tuple[float, float, str], ...]
    """x, y and what it says."""


@dataclass(frozen=True)
class Piece:
    """A stretch of y → ỹ: `kept`, `deleted` or `inserted`."""

    kind: str
    text: str


def write_page(run: Path, output: Path | None = None) -> Path:
    """Writes RUN/report.html, or `output`; whole or not at all.

    Raises:
        UserError: the folder is no run's or of another schema, a line is damaged, jinja2 is not installed, or the file
            cannot be written.
    """
    output = output or run / "report.html"
    samples = _samples(run)
    rows = [row for where, row in json_lines(run / "metrics.jsonl") if readable(where, row)]
    try:
        jinja2: Any = importlib.import_module("jinja2")
    except ImportError as error:
        raise UserError(
            "the report is made by jinja2, which is not installed: pip install 'refinerl[report]'"
        ) from error
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (resources.files("refinerl.report") / "page.html").read_text(encoding="utf-8")
    )
    config = (run / "config.yaml").read_text(encoding="utf-8")
    text = template.render(
        name=run.resolve().name,
        subject=subject(run / "config.yaml", config),
        steps=len(rows),
        curves=[curve(name, title, rows) for name, title in CURVES.items() if _has(name, rows)],
        samples=samples,
        config=config,
        width=WIDTH,
        height=HEIGHT,
    )
    write(output, [text])
    return output


def subject(path: Path, config: str) -> str:
    """What a run was about, in a line, from its config.yaml.

    Raises:
        UserError: it is no configuration.
    """
    try:
        values = yaml.safe_load(config)
        alone = values["constraint"]
        held = values.get("constraints") or [alone]
        words = [
            c["name"] if c["name"] == "none" else f"{c['name']} in the {c['apply']}, β = {c['beta']:g}" for c in held
        ]
        return f"{_label(values['algorithm']['name'])} on {values['model']}, constraint {' and '.join(words)}"
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not the configuration of a run: {error}") from error


def _label(algorithm: str) -> str:
    """A built-in algorithm is an acronym; a class of the user's has its own spelling."""
    return algorithm.upper() if ":" not in algorithm else algorithm.rpartition(":")[2]


def curve(name: str, title: str, rows: Sequence[dict[str, Any]]) -> Curve:
    """One metric's drawing; `rows` are those of metrics.jsonl, of which at least one has the metric."""
    points = [(row["step"], row.get(name)) for row in rows]
    values = [value for _, value in points if value is not None]
    low, high = min(values), max(values)
    first, last = points[0][0], points[-1][0]

    def place(step: int, value: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * ((step - first) / (last - first) if last > first else 0.5)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5)
        return round(x, 1), round(y, 1)

    lines: list[list[str]] = [[]]
    dots = []
    for step, value in points:
        if value is None:
            lines.append([])
            continue
        x, y = place(step, value)
        lines[-1].append(f"{x},{y}")
        dots.append((x, y, f"step {step}: {value:.4g}"))
    joined = tuple(" ".join(line) for line in lines if len(line) > 1)
    return Curve(title, name, f"{low:.4g}", f"{high:.4g}", f"{values[-1]:.4g}", joined, tuple(dots))


def diff(original: str, refined: str) -> list[Piece]:
    """y → ỹ word by word, by the fewest insertions and deletions."""
    words: dict[str, int] = defaultdict(lambda: len(words))
    cut = [re.findall(r"\s+|\w+|[^\w\s]", text) for text in (original, refined)]
    (alignment,) = align(*([[words[word] for word in text]] for text in cut))
    return list(_pieces(cut[0], cut[1], alignment))


def _pieces(original: Sequence[str], refined: Sequence[str], alignment: Any) -> Iterator[Piece]:
    i = j = 0
    for kept, i_end, j_end in runs(alignment.original_kept, alignment.refined_kept):
        if kept:
            yield Piece("kept", "".join(original[i:i_end]))
        else:
            yield from (
                Piece(kind, text)
                for kind, text in (
                    ("deleted", "".join(original[i:i_end])),
                    ("inserted", "".join(refined[j:j_end])),
                )
                if text
            )
        i, j = i_end, j_end


def _samples(run: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    """(step, its rows with their diffs) for the steps that are shown."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for _, row in rollouts(run):
        kept = by_step.setdefault(row["step"], [])
        kept.append(row)
        kept.sort(key=_merit, reverse=True)
        del kept[SAMPLES:]
    steps = list(by_step)
    count = min(STEPS, len(steps))
    chosen = sorted({steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)})
    for step in chosen:
        for row in by_step[step]:
            refined = row["refinement"]
            text = row["completion"]["text"]
            row["pieces"] = [Piece("kept", text)] if refined is None else diff(text, refined["completion"]["text"])
    return [(step, by_step[step]) for step in chosen]


def _merit(row: dict[str, Any]) -> float:
    refined = row["refinement"]
    if refined is None or refined["reward"] is None or row["reward"] is None:
        return -math.inf
    return float(refined["reward"]["value"] - row["reward"]["value"])


def _has(name: str, rows: Sequence[dict[str, Any]]) -> bool:
    return any(row.get(name) is not None for row in rows)

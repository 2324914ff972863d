"""A run as one HTML page that loads nothing from elsewhere: curves of its metrics, and refinements as diffs."""

from __future__ import annotations

import importlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from refinerl.alignment import align
from refinerl.errors import UserError, pip_install
from refinerl.report.export import save
from refinerl.report.rows import RolloutRow, evaluations, read_metrics, read_rollouts, training
from refinerl.report.summary import runs
from refinerl.tasks.reward_sum import TAKEN

CURVES = {
    "reward/mean": "mean reward",
    "evaluate/pass@1": "held-out success (pass@1)",
    "evaluate/reward": "held-out mean reward",
    "policy/kl_to_reference": "KL to the reference, nats per token",
    "refiner/improved_ratio": "improvement ratio",
    "constraint/ce": "cross-entropy on accepted ỹ, nats",
    "refiner/ce": "cross-entropy on ỹ of the probe, nats",
    "reward/group_std": "spread of rewards in a group",
    "policy/entropy": "entropy, nats per token",
    "completion/length": "tokens of a response",
    "time/step": "seconds per step",
}
"""Metrics that are drawn, with their titles: the curves of the paper's figures 4, 5 and 7, evaluations, and cost."""

STEPS, SAMPLES = 12, 6
"""Number of steps that the page shows, spread over the run, and of responses for each: those with the largest gain."""

WIDTH, HEIGHT, MARGIN = 360, 150, 6


@dataclass(frozen=True)
class Curve:
    """A metric over the steps, in the coordinates of its drawing."""

    title: str
    name: str
    low: str
    high: str
    last: str
    lines: tuple[str, ...]
    """`points` of polylines; a step without a value breaks the line."""
    dots: tuple[tuple[float, float, str], ...]
    """(x, y, tooltip) of each point."""
    bars: tuple[tuple[float, float, float], ...] = ()
    """(x, y of the low end, y of the high end) of each point's 95 % interval, if it has one."""


@dataclass(frozen=True)
class Piece:
    """A stretch of the diff y → ỹ."""

    kind: str
    """`kept`, `deleted` or `inserted`."""
    text: str


def write_page(run: Path, output: Path | None = None) -> Path:
    """Write RUN/report.html, or `output`, whole or not at all; return its path.

    Raises:
        UserError: the folder is not a run's or has another schema, a line is damaged, jinja2 is not installed, or the
            file cannot be written.
    """
    output = output or run / "report.html"
    samples = _samples(run)
    metrics = read_metrics(run)
    rows = training(metrics)
    try:
        jinja2: Any = importlib.import_module("jinja2")
    except ImportError as error:
        raise UserError(f"the report needs jinja2, which is not installed: {pip_install('jinja2')}") from error
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (resources.files("refinerl.report") / "page.html").read_text(encoding="utf-8")
    )
    config = (run / "config.yaml").read_text(encoding="utf-8")
    text = template.render(
        name=run.resolve().name,
        subject=subject(run / "config.yaml", config),
        steps=len(rows),
        curves=[
            curve(name, title, evaluations(metrics) if name.startswith("evaluate/") else rows)
            for name, title in (CURVES | _parts(metrics)).items()
            if _has(name, metrics)
        ],
        samples=samples,
        config=config,
        width=WIDTH,
        height=HEIGHT,
    )
    save(output, text)
    return output


def subject(path: Path, config: str) -> str:
    """Describe a run in one line, from the text of its config.yaml.

    Raises:
        UserError: the text is not a run's configuration.
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
    """Name an algorithm: built-in names are acronyms, a plug-in is named by its class."""
    return algorithm.upper() if ":" not in algorithm else algorithm.rpartition(":")[2]


def curve(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Draw one metric, with its intervals if it has any, from rows of metrics.jsonl, at least one of which has it."""
    points = [(row["step"], row.get(name)) for row in rows]
    values = [value for _, value in points if value is not None]
    ends = [(row["step"], row.get(f"{name}_low"), row.get(f"{name}_high")) for row in rows]
    intervals = [(step, below, above) for step, below, above in ends if below is not None and above is not None]
    low = min(values + [below for _, below, _ in intervals])
    high = max(values + [above for _, _, above in intervals])
    first, last = points[0][0], points[-1][0]

    def place(step: int, value: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * ((step - first) / (last - first) if last > first else 0.5)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5)
        return round(x, 1), round(y, 1)

    lines: list[list[str]] = [[]]
    dots = []
    spans = {step: f" (95 % interval {below:.4g} to {above:.4g})" for step, below, above in intervals}
    for step, value in points:
        if value is None:
            lines.append([])
            continue
        x, y = place(step, value)
        lines[-1].append(f"{x},{y}")
        dots.append((x, y, f"step {step}: {value:.4g}{spans.get(step, '')}"))
    joined = tuple(" ".join(line) for line in lines if len(line) > 1)
    bars = tuple((*place(step, below), place(step, above)[1]) for step, below, above in intervals)
    return Curve(title, name, f"{low:.4g}", f"{high:.4g}", f"{values[-1]:.4g}", joined, tuple(dots), bars)


def diff(original: str, refined: str) -> list[Piece]:
    """Compare y and ỹ word by word, with the fewest insertions and deletions."""
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


def _samples(run: Path) -> list[tuple[int, list[tuple[RolloutRow, list[Piece]]]]]:
    """Choose the steps and rollouts that the page shows; each rollout comes with its diff."""
    by_step: dict[int, list[RolloutRow]] = {}
    for row in read_rollouts(run):
        kept = by_step.setdefault(row.step, [])
        kept.append(row.as_probe())
        kept.sort(key=_gain, reverse=True)
        del kept[SAMPLES:]
    steps = list(by_step)
    count = min(STEPS, len(steps))
    chosen = sorted({steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)})
    return [(step, [(row, _rewrite(row)) for row in by_step[step]]) for step in chosen]


def _gain(row: RolloutRow) -> float:
    return -math.inf if row.gain is None else row.gain


def _rewrite(row: RolloutRow) -> list[Piece]:
    y = row.completion.text
    return [Piece("kept", y)] if row.refinement is None else diff(y, row.refinement.completion.text)


def _parts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metrics of the rewards that are added up, with their titles."""
    names = sorted({name for row in rows for name in row if name.startswith(("reward/", "evaluate/reward/"))})
    places = {"reward": "mean of the reward", "evaluate/reward": "held-out mean of the reward"}
    parts = {name: name.rpartition("/") for name in names}
    return {name: f"{places[of]} {part}" for name, (of, _, part) in parts.items() if part not in TAKEN}


def _has(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row.get(name) is not None for row in rows)

"""metrics.jsonl: a row for each step, made and read.

A run that evaluates begins with a row of step 0, which holds the evaluation before training only. A row is a JSON
object with `schema` and `step` in front of the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.errors import UserError
from refinerl.report.schema import SCHEMA, lines


def metrics_row(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Make a step's row of metrics.jsonl, in alphabetical order; None where a metric is not finite.

    >>> metrics_row(3, {"reward/mean": 0.5, "policy/entropy": float("nan")})
    {'schema': 1, 'step': 3, 'policy/entropy': None, 'reward/mean': 0.5}
    """
    values = {name: metrics[name] if math.isfinite(metrics[name]) else None for name in sorted(metrics)}
    return {"schema": SCHEMA, "step": step, **values}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl: one row for each step, None where a metric has no value; [] before the first step.

    Where the run evaluates, the first row is that of step 0, which is no training step: see `training`.

    Raises:
        UserError: a line is damaged, or another version of refinerl wrote it.
    """
    path = run / "metrics.jsonl"
    return [metrics_from_json(where, row) for where, row in lines(path, (SCHEMA,))] if path.exists() else []


def metrics_from_json(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Check a line of metrics.jsonl; a number that is not finite, or whose square is not, becomes None.

    Raises:
        UserError: it is not a step of a run; the message begins with `where`.
    """
    if type(row.get("step")) is not int:
        raise UserError(f"{where} is not a step of a run: its field 'step' must be a whole number")
    if wrong := [name for name, value in row.items() if not isinstance(value, int | float | None)]:
        raise UserError(f"{where} is not a step of a run: its field {wrong[0]!r} must be a number or null")
    return {name: value if value is None or abs(value) < _LARGEST else None for name, value in row.items()}


_LARGEST = 1e150


def training(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of training steps, without the evaluation before step 1.

    >>> training([{"step": 0, "evaluate/pass@1": 0.2}, {"step": 1, "reward/mean": 0.5}])
    [{'step': 1, 'reward/mean': 0.5}]
    """
    return [row for row in metrics if row["step"]]


def evaluations(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of steps with an evaluation, that before step 1 included."""
    return [row for row in metrics if any(name.startswith("evaluate/") for name in row)]

"""Folders of runs that were written without a training: a configuration and rows of metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from refinerl.report.metrics import metrics_row
from refinerl.run import recipe

METRICS = ("reward/mean", "policy/kl_to_reference", "constraint/ce", "refiner/improved_ratio", "reward/group_std")


def write_run(
    folder: Path, *overrides: str, rows: Sequence[Mapping[str, Any]] = (), model: Path | None = None, step: int = 0
) -> Path:
    """Write the folder of a run of the demo's recipe.

    Args:
        folder: of the run.
        overrides: knobs.
        rows: metrics by name, each with its `step`.
        model: a folder whose files become final/; None: final/ is empty.
        step: that of final/, if it is not 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rollouts").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(recipe.to_yaml(recipe.load("demo", list(overrides))))
    lines = [metrics_row(row["step"], {name: row[name] for name in row if name != "step"}) for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "final").mkdir(exist_ok=True)
    for path in () if model is None else model.iterdir():
        (folder / "final" / path.name).write_bytes(path.read_bytes())
    if step:
        (folder / "final" / "refinerl.json").write_text(json.dumps({"schema": 1, "step": step, "last": step}))
    return folder


def everything(count: int = 10, height: float = 1.0) -> list[dict[str, Any]]:
    """Return rows with all metrics that figures show, and evaluations at the start, in the middle and at the end."""
    rows: list[dict[str, Any]] = [{"step": 0, "evaluate/pass@1": 0.1}]
    rows += [{"step": step, **dict.fromkeys(METRICS, height * step / count)} for step in range(1, count + 1)]
    for row in (rows[count // 2], rows[-1]):
        row["evaluate/pass@1"] = 0.1 + 0.8 * row["step"] / count
    return rows


def write_study(output: Path, arms: Sequence[str], **record: Any) -> None:
    """Write the record of a study, as far as figures read it."""
    values = {"schema": 1, "study": "s", "arms": {arm: {} for arm in arms}, "seeds": [0, 1], **record}
    (output / "study.yaml").write_text(yaml.safe_dump(values))

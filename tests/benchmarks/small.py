"""A benchmark of three tasks in HumanEval's and HumanEval+'s files, small enough to judge in a moment."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

TASKS: list[dict[str, Any]] = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'def double(x):\n    """Twice x."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(4) == 8\n",
        "base_input": [[1], [4]],
        "plus_input": [[0], [-3], [0.1]],
        "atol": 0,
    },
    {
        "task_id": "HumanEval/1",
        "prompt": 'def backwards(text):\n    """The text from its end."""\n',
        "entry_point": "backwards",
        "canonical_solution": "    return text[::-1]\n",
        "test": "def check(candidate):\n    assert candidate('ab') == 'ba'\n",
        "base_input": [["ab"]],
        "plus_input": [[""], ["a"], ["abc"]],
        "atol": 0,
    },
    {
        "task_id": "HumanEval/2",
        "prompt": 'def spread(numbers):\n    """Greatest minus least."""\n',
        "entry_point": "spread",
        "canonical_solution": "    return max(numbers) - min(numbers)\n",
        "test": "def check(candidate):\n    assert candidate([1, 5]) == 4\n",
        "base_input": [[[1, 5]]],
        "plus_input": [[[2, 2]], [[-1, 3, 0]]],
        "atol": 0,
    },
]
BASE = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def write_small(folder: Path, *, plus: bool = True, rows: list[dict[str, Any]] | None = None) -> Path:
    """Write the files as they are published; return the folder."""
    rows = TASKS if rows is None else rows
    (folder / "humaneval").mkdir(parents=True)
    pack(folder / "humaneval" / "HumanEval.jsonl.gz", [{k: r[k] for k in BASE if k in r} for r in rows])
    if plus:
        (folder / "humanevalplus").mkdir()
        pack(folder / "humanevalplus" / "HumanEvalPlus.jsonl.gz", rows)
    return folder


def pack(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_samples(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def canonical(column: str = "solution") -> list[dict[str, Any]]:
    """Return samples that pass."""
    start = {"solution": lambda r: r["prompt"], "completion": lambda _: ""}[column]
    return [{"task_id": r["task_id"], column: start(r) + r["canonical_solution"]} for r in TASKS]

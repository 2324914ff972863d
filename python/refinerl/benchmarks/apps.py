"""APPS (Hendrycks et al. 2021) as a benchmark: problems judged by standard input and output, or by calls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from refinerl.benchmarks.suite import ProblemTask, Suite
from refinerl.data.apps import ProblemSet, chat_question, load_problems, official_prompt
from refinerl.errors import UserError


def apps(
    data: Path,
    *,
    split: str = "test",
    difficulties: Collection[str] | None = None,
    max_tests: int | None = None,
) -> Suite:
    """Read the problems of a file, of a split in a folder, of APPS's folder per problem, or of all files in a folder.

    Raises:
        UserError: there are no problems, or they cannot be read.
    """
    paths = _paths(data, split)
    problems: list[ProblemTask] = []
    notes = [f"read from {', '.join(path.name for path in paths)}"]
    without_tests = 0
    for path in paths:
        found = load_problems(path, max_tests=max_tests, difficulties=difficulties)
        without_tests += found.without_tests
        problems += _tasks(found, f"{path.stem}/" if len(paths) > 1 else "")
    if without_tests:
        notes.append(f"{without_tests} problems without tests are left out")
    return Suite("apps", tuple(problems), {}, tuple(notes), family="apps")


def _tasks(found: ProblemSet, prefix: str) -> list[ProblemTask]:
    return [
        ProblemTask(
            replace(problem, id=f"{prefix}{problem.id}"),
            official_prompt(problem),
            chat_question(problem),
        )
        for problem in found.problems
    ]


def _paths(data: Path, split: str) -> list[Path]:
    if data.is_file():
        return [data]
    for home in (data / "apps", data / "APPS", data):
        for place in (home / f"{split}.jsonl", home / split):
            if place.exists():
                return [place]
    for home in (data / "apps", data):
        files = sorted(home.glob("*.jsonl"))
        if files:
            return files
    if next(data.rglob("question.txt"), None) is not None:
        return [data]
    raise UserError(f"{data} holds no {split}.jsonl, no folder {split}, and no other file of JSON lines")

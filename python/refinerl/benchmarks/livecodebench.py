"""LiveCodeBench (Jain et al. 2024) as a benchmark: its code generation problems, in the layout of its data sets.

A file has a JSON object for each problem: `question_id`, `question_content`, `starter_code`, `difficulty`,
`contest_date`, `metadata` (JSON in a string, with `func_name` where the tests call a function), `public_test_cases` and
`private_test_cases`. Tests are JSON in a string, or in code_generation_lite that string pickled, compressed by zlib and
written in base64.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import io
import pickle
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.benchmarks.suite import ProblemTask, Suite
from refinerl.data.apps import Case, Problem, capped
from refinerl.data.jsonlines import json_lines, kind, parse
from refinerl.errors import UserError

COLUMNS = ("question_id", "question_content", "contest_date", "public_test_cases", "private_test_cases")

# LiveCodeBench, lcb_runner/prompts/code_generation.py
SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)
# lcb_runner/evaluation/testing_util.py gives every program these names; call-based ones have them in the sandbox.
STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
IMPORTS = (
    "".join(f"from {module} import *\n" for module in STARRED)
    + f"import {', '.join(STARRED[:-2])}\nsys.setrecursionlimit(50000)\n"
)


def livecodebench(
    paths: Sequence[Path],
    *,
    since: datetime.date | None = None,
    until: datetime.date | None = None,
    difficulties: Collection[str] | None = None,
    max_tests: int | None = None,
) -> Suite:
    """Read the problems of some files, in order.

    Args:
        since, until: only problems of contests from the first day on, and before the second.
        difficulties: those to keep: easy, medium, hard; None keeps all.
        max_tests: tests per problem at most, a choice that depends on the problem's id only.

    Raises:
        UserError: there are no problems, or they cannot be read.
    """
    tasks: dict[str, ProblemTask] = {}
    seen: set[str] = set()
    days: list[datetime.date] = []
    for path in paths:
        for where, row in _rows(path):
            day = _day(where, row)
            level = row.get("difficulty") or ""
            seen.add(level)
            outside = (since is not None and day < since) or (until is not None and day >= until)
            if outside or (difficulties is not None and level not in difficulties):
                continue
            task = _task(where, row, max_tests)
            if task.id in tasks:
                raise UserError(f"{where}: the question_id {task.id} was used before")
            tasks[task.id] = task
            days.append(day)
    if not tasks:
        window = f"; the difficulties are {', '.join(sorted(filter(None, seen)))}" if difficulties else ""
        raise UserError(
            f"{', '.join(map(str, paths))}: no problem is left by --since, --until and --difficulty{window}"
        )
    notes = (f"read from {', '.join(path.name for path in paths)}", f"contests from {min(days)} to {max(days)}")
    return Suite("livecodebench", tuple(tasks.values()), {}, notes, family="livecodebench")


def question(problem: Problem) -> str:
    """Return the question for a chat model, in LiveCodeBench's words."""
    starter = problem.starter_code
    form, code = (WITH_STARTER, starter) if starter else (WITHOUT_STARTER, "# YOUR CODE HERE")
    return (
        f"### Question:\n{problem.question}\n\n### Format: {form}\n```python\n{code}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


def completion_prompt(problem: Problem) -> str:
    """Return the prompt for a base model: LiveCodeBench's, without its example."""
    starter = f"### Starter Code\n{problem.starter_code}\n\n" if problem.starter_code else ""
    return f"### Question\n{problem.question}\n\n{starter}### Answer\n\n"


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, row in json_lines(path):
        for column in COLUMNS:
            if not isinstance(row.get(column), str):
                raise UserError(f"{where}: the column {column} must be a text, got {kind(row.get(column))}")
        yield where, row


def _day(where: str, row: Mapping[str, Any]) -> datetime.date:
    try:
        return datetime.date.fromisoformat(row["contest_date"][:10])
    except ValueError as error:
        raise UserError(f"{where}: the column contest_date must be a date, got {row['contest_date']!r:.40}") from error


def _task(where: str, row: Mapping[str, Any], max_tests: int | None) -> ProblemTask:
    metadata = row.get("metadata") or "{}"
    if isinstance(metadata, str):
        metadata = parse(f"{where}: the column metadata", metadata)
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    number = row["question_id"]
    tests = [
        _case(f"{where}: {column}[{i}]", test, name)
        for column in ("public_test_cases", "private_test_cases")
        for i, test in enumerate(_tests(f"{where}: the column {column}", row[column]))
    ]
    if not tests:
        raise UserError(f"{where}: the problem {number} has no tests")
    problem = Problem(
        id=number,
        question=row["question_content"],
        starter_code=row.get("starter_code") or "",
        fn_name=name,
        tests=capped(number, tuple(tests), max_tests),
        difficulty=row.get("difficulty") or "",
        solutions=(),
    )
    return ProblemTask(problem, completion_prompt(problem), question(problem))


def _tests(where: str, text: str) -> list[Any]:
    """Read a list of tests: JSON, or pickled JSON, compressed and in base64."""
    if not text.lstrip().startswith("["):
        try:
            text = _Texts(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
        except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError) as error:
            raise UserError(f"{where} is neither JSON nor LiveCodeBench's packed JSON ({error})") from error
        if not isinstance(text, str):
            raise UserError(f"{where}: the packed tests must be a text, got {kind(text)}")
    found = parse(where, text)
    if not isinstance(found, list):
        raise UserError(f"{where} must be a list of tests, got {kind(found)}")
    return found


class _Texts(pickle.Unpickler):
    """An unpickler of plain data: it creates no objects of classes, so that data cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds an object of {module}.{name}")


def _case(where: str, test: Any, name: str | None) -> Case:
    if not isinstance(test, dict) or not all(isinstance(test.get(field), str) for field in ("input", "output")):
        raise UserError(f"{where} must be an object with the texts input and output")
    if name is None:
        return Case(test["input"], test["output"])
    arguments = [parse(f"{where}.input", line) for line in test["input"].split("\n")]
    return Case(arguments, parse(f"{where}.output", test["output"]))

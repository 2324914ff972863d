"""Programming problems in the layout of APPS (Hendrycks et al. 2021): JSON lines, or one folder per problem."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from refinerl.data.jsonlines import decoded, json_rows, kind, parse
from refinerl.data.tables import is_saved, is_table, load_table
from refinerl.errors import UserError


class Case(NamedTuple):
    """A test as plain data."""

    input: Any
    """Text on standard input, or the list of a call's arguments."""
    expected: Any
    """Text on standard output, or the returned value: bare (LeetCode) or wrapped in a list (Codewars)."""


@dataclass(frozen=True)
class Problem:
    """A programming problem with its tests."""

    id: str
    question: str
    starter_code: str
    fn_name: str | None
    """The function or method that the tests call; None if they use standard input and output."""
    tests: tuple[Case, ...]
    difficulty: str
    solutions: tuple[str, ...]


@dataclass(frozen=True)
class ProblemSet:
    """The problems that can be trained on, and how many were left out."""

    problems: tuple[Problem, ...]
    without_tests: int
    """Number of problems without tests, which cannot be scored (550 of APPS's 5,000 training problems)."""


def load_problems(
    path: str | Path, *, max_tests: int | None = None, difficulties: Collection[str] | None = None
) -> ProblemSet:
    """Read the problems of a file or folder that have tests, in order.

    Args:
        max_tests: tests per problem at most.
        difficulties: those to keep; None keeps all.

    Raises:
        UserError: as `read_problems`; or no problem is left.

    >>> from refinerl.data import PROBLEMS
    >>> len(load_problems(PROBLEMS, difficulties=["trivial"]).problems)
    30
    """
    return _kept(str(path), read_problems(path, max_tests=max_tests), difficulties)


def problems_of(
    rows: Iterable[Any], *, max_tests: int | None = None, difficulties: Collection[str] | None = None
) -> ProblemSet:
    """Read problems from rows in memory, such as a `datasets.Dataset`; error messages count rows from 0.

    Raises:
        UserError: as `load_problems`; or a row is not a mapping.

    >>> tests = {"inputs": ["1 2"], "outputs": ["3"]}
    >>> problems_of([{"id": 7, "question": "Add two numbers.", "input_output": tests}]).problems[0].tests
    (Case(input='1 2', expected='3'),)
    """
    return _kept("prompts", _problems(_numbered(rows), max_tests), difficulties)


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(
                f"prompts[{number}] must be a problem (a dict with question and input_output), got {type(row).__name__}"
            )
        yield f"prompts[{number}]", row


def _kept(source: str, problems: Iterable[Problem], difficulties: Collection[str] | None) -> ProblemSet:
    kept: list[Problem] = []
    without_tests = filtered = 0
    seen: set[str] = set()
    for problem in problems:
        seen.add(problem.difficulty)
        if difficulties is not None and problem.difficulty not in difficulties:
            filtered += 1
        elif not problem.tests:
            without_tests += 1
        else:
            kept.append(problem)
    if not kept:
        reason = f"{without_tests} without tests, {filtered} of another difficulty"
        known = f"; its difficulties are {', '.join(sorted(filter(None, seen)))}" if filtered else ""
        raise UserError(f"{source}: no problem left ({reason}){known}")
    return ProblemSet(tuple(kept), without_tests)


def read_problems(path: str | Path, *, max_tests: int | None = None) -> Iterator[Problem]:
    """Read the problems of a file or folder one at a time, in order, including those without tests (`tests == ()`).

    A file (JSON lines, a JSON array, or a table that `datasets` reads, such as Parquet) has the fields `question`,
    `problem_id` (or `id`), `input_output`, and optionally `solutions`, `starter_code` and `difficulty`. `input_output`
    and `solutions` are JSON inside a string, as in APPS, or plain JSON. A folder has one folder per problem, at any
    depth: `question.txt`, and optionally `input_output.json`, `solutions.json`, `starter_code.py` and `metadata.json`;
    its relative path is the problem's id. A folder that `save_to_disk` wrote is a table.

    `max_tests` limits the tests of a problem. The choice depends only on the problem's id, keeps the tests' order, and
    a larger limit only adds tests.

    Raises:
        UserError: the path does not exist; a line or file is not JSON, lacks a field, or has one of the wrong type; an
            id occurs twice. The message names file and line.
    """
    path = Path(path)
    if max_tests is not None and max_tests < 1:
        raise ValueError(f"max_tests must be at least 1, got {max_tests}")
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    yield from _problems(_rows(path), max_tests)


def _rows(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if path.is_dir() and not is_saved(path):
        return _folder(path)
    if is_table(str(path)):
        return ((f"{path} row {number}", row) for number, row in enumerate(load_table(str(path))))
    return json_rows(path)


def _problems(rows: Iterable[tuple[str, Mapping[str, Any]]], max_tests: int | None) -> Iterator[Problem]:
    first_seen: dict[str, str] = {}
    for where, row in rows:
        problem = _problem(where, row, max_tests)
        if problem.id in first_seen:
            raise UserError(f"{where}: the problem_id {problem.id} was used before, at {first_seen[problem.id]}")
        first_seen[problem.id] = where
        yield problem


def official_prompt(problem: Problem) -> str:
    """Return the prompt of the APPS paper's code, for models that were trained on it."""
    starter = f"\n{problem.starter_code}" if problem.starter_code else ""
    interface = "\nUse Call-Based format" if problem.fn_name else "\nUse Standard Input format"
    return f"\nQUESTION:\n{problem.question}{starter}{interface}\nANSWER:\n"


def chat_question(problem: Problem) -> str:
    """Return the question for a chat model: the statement, and the function or starter code to write."""
    if problem.starter_code.strip():
        return f"{problem.question.strip()}\n\nStart with:\n```python\n{problem.starter_code.strip()}\n```"
    if problem.fn_name:
        return f"{problem.question.strip()}\n\nWrite a function named {problem.fn_name}."
    return f"{problem.question.strip()}\n\nRead from standard input and print the answer."


def _folder(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read each problem's folder as (folder, row), in the order of their names."""
    questions = sorted(path.rglob("question.txt"))
    if not questions:
        raise UserError(f"{path}: no folder in it holds a question.txt, so it is not in APPS's folder layout")
    for question in questions:
        home = question.parent
        row: dict[str, Any] = {"problem_id": home.relative_to(path).as_posix()}
        for field, name in (("question", "question.txt"), ("starter_code", "starter_code.py")):
            row[field] = _text(home / name)
        for field in ("input_output", "solutions", "metadata"):
            file = home / f"{field}.json"
            text = _text(file)
            row[field] = parse(str(file), text) if text.strip() else None
        metadata = row.pop("metadata")
        if isinstance(metadata, dict):
            row["difficulty"] = metadata.get("difficulty")
        yield str(home), row


def _text(path: Path) -> str:
    """Read a file's text; "" if there is no file, since APPS leaves out what a problem lacks."""
    try:
        return decoded(str(path), path.read_bytes())
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _problem(where: str, row: Mapping[str, Any], max_tests: int | None) -> Problem:
    number = row.get("problem_id", row.get("id"))
    if isinstance(number, bool) or not isinstance(number, int | str):
        if number is None and "prompt" in row:
            raise UserError(
                f"{where}: the field problem_id is missing; rows with the field prompt are read by task.name=dialogue"
            )
        raise _field_error(where, "problem_id", "a number or a text", number)
    question = row.get("question")
    if not isinstance(question, str):
        raise _field_error(where, "question", "a text", question)
    if "input_output" not in row:
        raise UserError(f"{where}: the field input_output is missing; leave it empty for a problem without tests")
    fn_name, tests = _tests(where, _nested(where, "input_output", row["input_output"]))
    solutions = _nested(where, "solutions", row.get("solutions")) or []
    if not isinstance(solutions, list) or not all(isinstance(s, str) for s in solutions):
        raise UserError(f"{where}: the field solutions must be a list of texts, got {kind(solutions)}")
    for name in ("starter_code", "difficulty"):
        if not isinstance(row.get(name) or "", str):
            raise _field_error(where, name, "a text", row[name])
    return Problem(
        id=str(number),
        question=question,
        starter_code=row.get("starter_code") or "",
        fn_name=fn_name,
        tests=capped(str(number), tests, max_tests),
        difficulty=row.get("difficulty") or "",
        solutions=tuple(solutions),
    )


def _tests(where: str, data: Any) -> tuple[str | None, tuple[Case, ...]]:
    """Return `fn_name` and the tests of a parsed `input_output`."""
    if not data:
        return None, ()
    if not isinstance(data, dict):
        raise UserError(f"{where}: the field input_output must be an object, got {kind(data)}")
    fn_name = data.get("fn_name") or None
    if not isinstance(fn_name, str | None):
        raise _field_error(where, "input_output.fn_name", "a text", fn_name)
    for name in ("inputs", "outputs"):
        if not isinstance(data.get(name), list):
            raise _field_error(where, f"input_output.{name}", "a list", data.get(name))
    inputs, outputs = data["inputs"], data["outputs"]
    if len(inputs) != len(outputs):
        raise UserError(f"{where}: input_output has {len(inputs)} inputs and {len(outputs)} outputs")
    if fn_name is None:
        inputs = [_lines(f"{where}: input_output.inputs[{i}]", value) for i, value in enumerate(inputs)]
        outputs = [_lines(f"{where}: input_output.outputs[{i}]", value) for i, value in enumerate(outputs)]
    else:
        for i, value in enumerate(inputs):
            if not isinstance(value, list):
                raise UserError(f"{where}: input_output.inputs[{i}] must be a list of arguments, got {kind(value)}")
    return fn_name, tuple(Case(*pair) for pair in zip(inputs, outputs, strict=True))


def _lines(where: str, value: Any) -> str:
    """Return the text of standard input or output, which APPS also writes as a list of lines."""
    if isinstance(value, list):
        return "\n".join(str(line) for line in value)
    if not isinstance(value, str):
        raise UserError(f"{where} must be a text or a list of lines, got {kind(value)}")
    return value


def capped(problem_id: str, tests: tuple[Case, ...], max_tests: int | None) -> tuple[Case, ...]:
    """Choose `max_tests` of the tests, in their order. The choice depends only on the problem's id."""
    if max_tests is None or len(tests) <= max_tests:
        return tests
    ranked = sorted(range(len(tests)), key=lambda i: hashlib.sha256(f"{problem_id}:{i}".encode()).digest())
    return tuple(tests[i] for i in sorted(ranked[:max_tests]))


def _nested(where: str, field: str, value: Any) -> Any:
    """Parse a field that is JSON inside a string (empty: None) or JSON already."""
    if not isinstance(value, str):
        return value
    return parse(f"{where}: the field {field}", value) if value.strip() else None


def _field_error(where: str, name: str, rule: str, value: Any) -> UserError:
    if value is None:
        return UserError(f"{where}: the field {name} is missing")
    return UserError(f"{where}: the field {name} must be {rule}, got {kind(value)}")

"""MBPP (google-research) and MBPP+ (evalplus)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from refinerl.benchmarks.files import field, find, read
from refinerl.benchmarks.humaneval import read_plus
from refinerl.benchmarks.mbpp_types import restored
from refinerl.benchmarks.suite import CallTask, Oracle, Suite
from refinerl.errors import UserError

COLUMNS = ("task_id", "text", "code", "test_list", "test_setup_code")
SANITIZED_COLUMNS = ("task_id", "prompt", "code", "test_list", "test_imports")
PLUS_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
PLUS_FILES = ("MbppPlus-NoExtreme.jsonl", "MbppPlus.jsonl")
TEST_SPLIT = range(11, 511)
"""Task ids of the paper's test split."""

Split = Literal["test", "all", "sanitized"]

SAME_SET = {
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
    "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
}  # fmt: skip
"""Functions whose result is right in any order and with any repetitions."""
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
"""Functions that may return a match object, where it only counts whether there is one."""

LEFT_OUT: dict[str, Callable[..., bool]] = {"Mbpp/255": lambda words, count: len(words) > 3 and count > 70}
"""Extended tests that are not run: this function's answers to them are 80,000 to 1.7 million tuples of 77 words, which
are gigabytes to carry out of the program's process for comparison."""

# Converts a result into plain data inside the program's process. A program that tampers with it only changes its own
# result.
_WRAPPER = """
def _refinerl_plain(*arguments):
    value = {function}(*arguments)
    return {plain}
"""
_ITEMS = "value if isinstance(value, (list, tuple, set, frozenset, str, bytes, dict)) else list(value)"
_PRESENCE = "value if isinstance(value, bool) else value is not None"


def mbpp_plus(data: Path, *, unverified: bool = False) -> Suite:
    """Read MBPP+: base and extended tests, from the file without extreme inputs if both files are there.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    table, note = read_plus(data, "mbppplus", PLUS_FILES, PLUS_COLUMNS, unverified=unverified)
    tasks = tuple(_plus_task(where, row) for where, row in table.rows)
    cut = {row["task_id"]: sum(_left_out(row["task_id"], a) for a in row["plus_input"]) for _, row in table.rows}
    left_out = ", ".join(f"{count} extended tests of {number}" for number, count in cut.items() if count)
    notes = (note, f"left out for the size of their answers: {left_out}") if left_out else (note,)
    return Suite("mbpp+", tasks, {table.path.name: table.digest}, notes, family="mbpp")


def mbpp(data: Path, *, split: Split = "test", unverified: bool = False) -> Suite:
    """Read MBPP: the test split (task ids 11 to 510), all of it, or the sanitized file.

    Its assertions are split: the program's process computes the left side, the right side is computed without the
    program, and the two are compared outside of its process. An assertion without a right side must be true.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    name = "sanitized-mbpp.json" if split == "sanitized" else "mbpp.jsonl"
    paths = find(data, "mbpp", [name])
    if not paths:
        raise UserError(f"{data} holds no mbpp/{name}")
    table = read(paths[0], SANITIZED_COLUMNS if split == "sanitized" else COLUMNS, unverified=unverified)
    rows = [(w, row) for w, row in table.rows if split != "test" or row["task_id"] in TEST_SPLIT]
    if not rows:
        raise UserError(f"{table.path}: no row belongs to the split {split}")
    tasks = tuple(_task(where, row, sanitized=split == "sanitized") for where, row in rows)
    notes = {"test": "the test split: task ids 11 to 510", "all": "all splits", "sanitized": "the sanitized tasks"}
    return Suite("mbpp", tasks, {table.path.name: table.digest}, (notes[split],), family="mbpp")


def _plus_task(where: str, row: dict[str, Any]) -> CallTask:
    number, function = field(where, row, "task_id", str), field(where, row, "entry_point", str)
    prompt = field(where, row, "prompt", str)
    # In a task without extended tests this is an empty object.
    extended = field(where, row, "plus_input", list) if row["plus_input"] != {} else []
    wrapped = _ITEMS if function in SAME_SET else _PRESENCE if function in NOT_NONE else None
    return CallTask(
        id=number,
        prompt=prompt,
        question=prompt,
        entry_point=function,
        canonical=prompt + field(where, row, "canonical_solution", str),
        base=tuple(restored(number, arguments) for arguments in field(where, row, "base_input", list)),
        plus=tuple(restored(number, arguments) for arguments in extended if not _left_out(number, arguments)),
        suffix="" if wrapped is None else _WRAPPER.format(function=function, plain=wrapped),
        called="" if wrapped is None else "_refinerl_plain",
        oracle=_oracle(function),
        atol=float(row["atol"]),
    )


def _left_out(number: str, arguments: list[Any]) -> bool:
    return number in LEFT_OUT and LEFT_OUT[number](*arguments)


def _oracle(function: str) -> Oracle:
    if function in SAME_SET:
        return "same_set"
    if function in NOT_NONE:
        return "not_none"
    match function:
        case "digit_distance_nums":
            return "digit_distance"
        case "surface_Area":
            return "surface_area"
    return "close"


def _task(where: str, row: dict[str, Any], *, sanitized: bool) -> CallTask:
    code = field(where, row, "code", str).replace("\r\n", "\n")
    tests = field(where, row, "test_list", list)
    text = field(where, row, "prompt" if sanitized else "text", str)
    if sanitized:
        before, setup = "\n".join(field(where, row, "test_imports", list)), ""
    else:
        before, setup = "", field(where, row, "test_setup_code", str).replace("\r\n", "\n")
    sides = [_sides(where, test) for test in tests]
    if not sides:
        raise UserError(f"{where}: the column test_list is empty")
    # The prompt of Fried et al. (InCoder), as in bigcode's harness and evalplus.
    prompt = f'"""\n{text}\n{tests[0]}\n"""\n'
    return CallTask(
        id=f"Mbpp/{row['task_id']}",
        prompt=prompt,
        question=prompt,
        entry_point=_called(sides[0][0]),
        canonical=prompt + code,
        base=tuple([index] for index in range(len(sides))),
        reference=f"{code}\n{_evaluating(before, setup, [right for _, right in sides])}",
        suffix=_evaluating(before, setup, [left for left, _ in sides]),
        called="_refinerl_side",
        labels=tuple(tests),
    )


def _sides(where: str, assertion: str) -> tuple[str, str]:
    """Split `assert left == right`; the right side of any other condition is `True`."""
    try:
        (statement,) = ast.parse(assertion.strip()).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{where}: a test is not a Python statement: {assertion!r:.100}") from error
    if not isinstance(statement, ast.Assert):
        raise UserError(f"{where}: a test is not an assertion: {assertion!r:.100}")
    match statement.test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            return ast.unparse(left), ast.unparse(right)
        case condition:
            return f"bool({ast.unparse(condition)})", "True"


def _evaluating(before: str, setup: str, expressions: list[str]) -> str:
    """Write source in which `_refinerl_side(i)` evaluates the i-th expression."""
    sides = "".join(f"    lambda: {expression},\n" for expression in expressions)
    return f"\n{before}\n{setup}\n_refinerl_sides = [\n{sides}]\ndef _refinerl_side(i): return _refinerl_sides[i]()\n"


def _called(expression: str) -> str:
    """Find the function that an expression tests: that of its innermost call."""
    calls = [node for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    known = [name for name in names if name not in _BUILTIN]
    return (known or names or [""])[0]


_BUILTIN = {"set", "int", "bool", "sorted", "round", "list", "tuple", "str", "float", "len", "Pair"}

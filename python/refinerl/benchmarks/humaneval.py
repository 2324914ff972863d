"""HumanEval (openai/human-eval) and HumanEval+ (evalplus).

HumanEval's own tests are assertions inside the program's process, which a program can forge. evalplus's file has the
same tests as calls (`base_input`), so that file serves both benchmarks if it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refinerl.benchmarks.files import Table, field, find, read
from refinerl.benchmarks.suite import CallTask, Suite
from refinerl.errors import UserError

COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
PLUS_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
PLUS_FILES = ("HumanEvalPlus-NoExtreme.jsonl", "HumanEvalPlus.jsonl")

FORGEABLE = (
    "HumanEvalPlus.jsonl is missing, so HumanEval's own assertions judge inside the program's process: "
    "a malicious program can forge such a verdict"
)
_CHECK = "_refinerl_check"


def humaneval(data: Path, *, unverified: bool = False) -> Suite:
    """Read HumanEval: its own prompts, and the base tests.
    Raises:
        UserError: a file is missing or cannot be used.
    """
    paths = find(data, "humaneval", ["HumanEval.jsonl"])
    if not paths:
        raise UserError(f"{data} holds no humaneval/HumanEval.jsonl(.gz)")
    table = read(paths[0], COLUMNS, unverified=unverified)
    files = {table.path.name: table.digest}
    calls = find(data, "humanevalplus", PLUS_FILES)
    if not calls:
        return Suite("humaneval", tuple(_asserted(*row) for row in table.rows), files, (FORGEABLE,))
    plus = read(calls[0], PLUS_COLUMNS, unverified=unverified)
    files[plus.path.name] = plus.digest
    tasks = {task.id: task for task in (_task(where, row, with_plus=False) for where, row in plus.rows)}
    merged = []
    for where, row in table.rows:
        task = tasks.get(row["task_id"])
        if task is None or task.entry_point != row["entry_point"]:
            raise UserError(f"{where}: {row['task_id']} is not the same task in {plus.path}")
        merged.append(_with_prompt(task, row["prompt"], row["prompt"] + row["canonical_solution"]))
    note = f"the base tests are the calls in {plus.path.name}"
    return Suite("humaneval", tuple(merged), files, (note,))


def humaneval_plus(data: Path, *, unverified: bool = False) -> Suite:
    """Read HumanEval+: base and extended tests, from the file without extreme inputs if both files are there.
    Raises:
        UserError: a file is missing or cannot be used.
    """
    table, note = read_plus(data, "humanevalplus", PLUS_FILES, PLUS_COLUMNS, unverified=unverified)
    tasks = tuple(_task(where, row, with_plus=True) for where, row in table.rows)
    return Suite("humaneval+", tasks, {table.path.name: table.digest}, (note,))


def read_plus(
    data: Path, folder: str, names: tuple[str, ...], columns: tuple[str, ...], *, unverified: bool
) -> tuple[Table, str]:
    """Read the first of evalplus's files that is there; return it with a note that names it.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    paths = find(data, folder, names)
    if not paths:
        raise UserError(f"{data} holds no {folder}/{names[-1]}(.gz) and no {names[0]}(.gz)")
    others = [path.name for path in paths[1:] if path.name != paths[0].name]
    note = f"tests of {paths[0].name}" + (f" ({others[0]} is there too and is not used)" if others else "")
    return read(paths[0], columns, unverified=unverified), note


def _task(where: str, row: dict[str, Any], *, with_plus: bool) -> CallTask:
    prompt, entry_point = field(where, row, "prompt", str), field(where, row, "entry_point", str)
    return CallTask(
        id=field(where, row, "task_id", str),
        prompt=prompt,
        question=prompt,
        entry_point=entry_point,
        canonical=prompt + field(where, row, "canonical_solution", str),
        base=tuple(field(where, row, "base_input", list)),
        plus=tuple(field(where, row, "plus_input", list)) if with_plus else (),
        oracle="find_zero" if entry_point == "find_zero" else "close",
        atol=float(row["atol"]),
    )


def _with_prompt(task: CallTask, prompt: str, canonical: str) -> CallTask:
    """Give a task HumanEval's own prompt; its expected values still come from evalplus's solution."""
    return CallTask(
        id=task.id,
        prompt=prompt,
        question=prompt,
        entry_point=task.entry_point,
        canonical=canonical,
        base=task.base,
        reference=task.canonical,
        oracle=task.oracle,
        atol=task.atol,
    )


def _asserted(where: str, row: dict[str, Any]) -> CallTask:
    prompt, entry_point = field(where, row, "prompt", str), field(where, row, "entry_point", str)
    # The verdict is a value that must be returned, so that a program cannot pass by ending its process early.
    call = f"\ndef {_CHECK}():\n    check({entry_point})\n    return True\n"
    return CallTask(
        id=field(where, row, "task_id", str),
        prompt=prompt,
        question=prompt,
        entry_point=entry_point,
        canonical=prompt + field(where, row, "canonical_solution", str),
        base=([],),
        reference=f"def {_CHECK}(): return True",
        suffix=f"\n{field(where, row, 'test', str)}\n{call}",
        called=_CHECK,
        labels=(f"check({entry_point})",),
    )

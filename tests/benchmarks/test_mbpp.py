"""MBPP's assertions, split into sides, and MBPP+'s types, restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refinerl.benchmarks.mbpp import mbpp
from refinerl.benchmarks.mbpp_types import restored
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import CallTask, Result, Sample
from refinerl.errors import UserError
from refinerl.sandbox import Sandbox


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "mbpp").mkdir()
    fields = {"text": "Do it.", "test_setup_code": "", "challenge_test_list": []}
    lines = [json.dumps({**fields, "task_id": 11 + n, **row}) + "\n" for n, row in enumerate(rows)]
    (folder / "mbpp" / "mbpp.jsonl").write_text("".join(lines))
    return folder


def judged(folder: Path, *programs: str) -> list[Result]:
    suite = mbpp(folder, unverified=True)
    with Sandbox(1) as box:
        return Scorer(suite, box, seconds=2).score([Sample(suite.tasks[0].id, n, p) for n, p in enumerate(programs)])


def test_the_prompt_shows_one_test(tmp_path):
    tests = ["assert twice(2) == 4", "assert twice(-1) == -2"]
    suite = mbpp(write(tmp_path, {"code": "def twice(x): return 2*x", "test_list": tests}), unverified=True)
    (task,) = suite.tasks
    assert isinstance(task, CallTask)
    assert (task.id, task.entry_point) == ("Mbpp/11", "twice")
    assert task.prompt == '"""\nDo it.\nassert twice(2) == 4\n"""\n'
    assert task.labels == tuple(tests)
    assert "-2" not in task.suffix  # the right side is not where the program is


def test_assertions_of_every_shape(tmp_path):
    tests = [
        "assert f(2) == (2, 2)",
        "assert set(f(3)) == set([3])",
        "assert not f(0)[0]",
        "assert len(f(1)) == LENGTH",
        "assert f(1) != [1, 1]",
    ]
    row = {"code": "def f(x): return (x, x)", "test_list": tests, "test_setup_code": "LENGTH = len(f(9))"}
    data = write(tmp_path, row)
    right, as_list, wrong, silent = judged(
        data, row["code"], "def f(x): return [x, x]", "def f(x): return (x, 2)", "def f(x): raise ValueError('no')"
    )
    assert right.passed
    assert (as_list.outcome, as_list.failure and as_list.failure.input) == ("wrong_answer", "assert f(2) == (2, 2)")
    assert (wrong.outcome, wrong.failure and wrong.failure.test) == ("wrong_answer", 1)
    assert (silent.outcome, silent.plus) == ("runtime_error", None)
    assert silent.failure is not None
    assert "ValueError: no" in silent.failure.got


def test_the_split(tmp_path):
    rows = [{"code": "def f(): pass", "test_list": ["assert f() == None"], "task_id": n} for n in (10, 11, 510, 511)]
    data = write(tmp_path, *rows)
    assert [task.id for task in mbpp(data, unverified=True).tasks] == ["Mbpp/11", "Mbpp/510"]
    assert len(mbpp(data, split="all", unverified=True).tasks) == 4
    with pytest.raises(UserError, match=r"holds no mbpp/sanitized-mbpp.json"):
        mbpp(data, split="sanitized", unverified=True)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (["f(1)"], "a test is not an assertion"),
        (["assert f("], "a test is not a Python statement"),
        ([], "the column test_list is empty"),
    ],
)
def test_assertions_that_are_none(tmp_path, tests, message):
    with pytest.raises(UserError, match=message):
        mbpp(write(tmp_path, {"code": "def f(x): pass", "test_list": tests}), unverified=True)


@pytest.mark.parametrize(
    ("task", "arguments", "expected"),
    [
        (2, [[3, 4], [5]], [(3, 4), (5,)]),
        (63, [[[1, 2], [3]]], [[(1, 2), (3,)]]),
        (259, [[[1, 3]], [[6]]], [((1, 3),), ((6,),)]),
        (75, [[[6, 24]], 6], [[(6, 24)], 6]),
        (307, [["H", 5, [], True], 2, 50], [("H", 5, [], True), 2, 50]),
        (106, [[5], [9, 10]], [[5], (9, 10)]),
        (115, [[[1, 1], []]], [[{1}, {}]]),
        (278, [[1, [2, 3]]], [(1, (2, 3))]),
        (722, [{"C": [5, 6]}, 6], [{"C": (5, 6)}, 6]),
        (580, [[4, [7, [2]]]], [(4, (7, (2,)))]),
        (124, ["0", "1j"], [0.0, 1j]),
        (252, ["(1+2j)"], [1 + 2j]),
        (3, [[1]], [[1]]),
    ],
)
def test_types_that_json_lost(task, arguments, expected):
    found = restored(f"Mbpp/{task}", arguments)
    assert found == expected
    assert [type(a) for a in found] == [type(a) for a in expected]

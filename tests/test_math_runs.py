"""A run on 200 rows in GSM8K's layout, judged by math-verify, from training to the exported model."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from launching import needs_vllm
from refinerl import evaluate, train
from refinerl.report import command as report
from tiny import write_tiny
from toy import metrics, rollouts

ALPHABET = "0123456789+= "
TRAIN, HELD_OUT = 160, 40


def gsm8k_rows() -> list[dict[str, str]]:
    """Questions with worked answers; seven of eight answers are 7, which a tiny model can learn."""
    noise = random.Random(0)
    rows = []
    for number in range(TRAIN + HELD_OUT):
        total = 7 if number % 8 else noise.randrange(8, 17)
        first = noise.randrange(max(0, total - 9), min(9, total) + 1)
        asked = f"{first}+{total - first}="
        worked = f"The sum is {first} + {total - first} = <<{first}+{total - first}={total}>>{total}.\n#### {total}"
        rows.append({"question": asked, "answer": worked})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, rows = tmp_path_factory.mktemp("gsm8k"), gsm8k_rows()
    parts = {"train.jsonl": rows[:TRAIN], "test.jsonl": rows[TRAIN:]}
    for name, part in parts.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder / "train.jsonl", folder / "test.jsonl"


def words(model: Path, data: tuple[Path, Path]) -> list[str]:
    task = ["task.name=dialogue", f"task.path={data[0]}", "task.column=question", "task.reward=rule:math"]
    small = [
        "generation.max_tokens=1",
        "generation.temperature=1",
        "algorithm.samples_per_prompt=8",
        "trainer.batch=64",
    ]
    learning = ["trainer.learning_rate=3e-3", "trainer.steps=6", "constraint.accept_truncated=true"]
    return ["smollm", f"model={model}", *task, *small, *learning, "sandbox.workers=1"]


@pytest.fixture(scope="module")
def run(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, and evaluate every second step on the held-out rows."""
    folder = tmp_path_factory.mktemp("math")
    model = write_tiny(folder / "model", alphabet=ALPHABET, hidden=128, scale=0.05)
    evaluation = ["evaluate.every=2", f"evaluate.path={data[1]}", "checkpoint.every=6", "checkpoint.keep=1"]
    assert train.main([*words(model, data), *evaluation, "--output-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_math_verify_judges_y_and_the_held_out_rows(run: Path) -> None:
    rows = metrics(run)
    curve = {row["step"]: row["evaluate/pass@1"] for row in rows if "evaluate/pass@1" in row}
    assert list(curve) == [0, 2, 4, 6]
    assert curve[0] < 0.3
    assert max(curve.values()) > 0.6
    best = next(row for row in rows if row.get("evaluate/pass@1") == max(curve.values()))
    first = rows[0]
    assert best["evaluate/pass@1_low"] > first["evaluate/pass@1_high"]
    assert all(row["math/timeouts"] == row["math/crashes"] == 0 for row in rows if row["step"])
    for row in rollouts(run, 1):
        total = row["prompt"]["text"]
        right = sum(map(int, total.rstrip("=").split("+")))
        written = row["completion"]["text"].split()
        assert row["reward"]["value"] == float(bool(written) and written[-1].lstrip("+=") == str(right)), row


@pytest.fixture(scope="module")
def best(run: Path) -> tuple[int, Path]:
    """The best step and its exported model."""
    state = json.loads((run / "checkpoint-6" / "trainer_state.json").read_text())
    curve = {row["step"]: row["evaluate/pass@1"] for row in metrics(run) if row.get("evaluate/pass@1") is not None}
    assert state["best_score"] == max(curve[step] for step in curve if step) == curve[state["best_step"]]
    model = run.parent / "exported"
    assert report.main(["export", str(run), "--format", "model", "--step", "best", "--output", str(model)]) == 0
    return state["best_step"], model


def measured(words: list[str], output: Path) -> dict[str, float]:
    assert evaluate.main([*words, "--benchmark", "task", "--device", "cpu", "--output", str(output)]) == 0
    found: dict[str, float] = json.loads((output / "summary.json").read_text())["metrics"]
    return found


@pytest.mark.slow
def test_the_best_checkpoint_is_evaluated_as_in_the_run(run: Path, best, tmp_path: Path, data, capsys) -> None:
    step, _ = best
    row = next(row for row in metrics(run) if row["step"] == step)
    found = measured([str(run / f"checkpoint-{step}")], tmp_path / "best")
    assert found == {name: value for name, value in row.items() if name.startswith("evaluate/")}
    assert f"pass@1: {row['evaluate/pass@1']:.1%} (95 % interval " in capsys.readouterr().out
    last = metrics(run)[-1]
    assert measured([str(run)], tmp_path / "last")["evaluate/pass@1"] == last["evaluate/pass@1"]
    other = measured([str(run), "--data", str(data[0]), "--limit", "8", "--max-tokens", "2"], tmp_path / "train")
    assert other["evaluate/pass@1"] in [k / 8 for k in range(9)]
    words = [str(run), "--n", "4", "--temperature", "5", "--max-tokens", "1"]
    sampled = measured(words, tmp_path / "sampled")
    assert sampled["evaluate/pass@1"] < last["evaluate/pass@1"]


@pytest.mark.slow
def test_the_exported_model_loads_in_transformers(run: Path, best, data) -> None:
    step, folder = best
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in data[1].read_text().splitlines()]
    right = 0
    for row in rows:
        ids = tokenizer(row["question"], return_tensors="pt").input_ids
        with torch.no_grad():
            token = int(model(ids).logits[0, -1].argmax())
        right += tokenizer.decode([token]).strip() == row["answer"].rpartition("#### ")[2]
    row = next(row for row in metrics(run) if row["step"] == step)
    assert right / len(rows) == row["evaluate/pass@1"]


@needs_vllm
@pytest.mark.slow
def test_the_best_checkpoint_answers_the_same_in_vllm(run: Path, best, tmp_path: Path) -> None:
    step, _ = best
    row = next(row for row in metrics(run) if row["step"] == step)
    found = measured([str(run / f"checkpoint-{step}"), "--engine", "vllm"], tmp_path / "vllm")
    assert found["evaluate/pass@1"] == pytest.approx(row["evaluate/pass@1"], abs=1 / HELD_OUT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MODEL"], "is neither a run nor the folder of a model in one: give the run's folder"),
        (
            ["RUN", "--data", "nowhere.jsonl"],
            "--data nowhere.jsonl, read as task.name=dialogue: cannot read",
        ),
        (["RUN", "--data", "EMPTY"], "empty.jsonl is empty"),
        (["RUN", "--prompting", "chat"], "--prompting is for benchmarks"),
        (["--samples", "EMPTY"], "--benchmark task needs a run"),
        (["RUN", "--max-tokens", "9999"], "--max-tokens 9999 leaves no room for a prompt"),
    ],
)
@pytest.mark.slow
def test_an_evaluation_that_cannot_be_made(run: Path, tmp_path: Path, capsys, words, said) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    names = {"RUN": str(run), "MODEL": str(run.parent / "model"), "EMPTY": str(empty)}
    assert evaluate.main([*(names.get(word, word) for word in words), "--benchmark", "task", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert error.startswith("error: ")
    assert error.count("\n") == 1

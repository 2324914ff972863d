"""A run on 200 rows in GSM8K's layout, judged by math-verify, from training to the exported model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from refinerl import train
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

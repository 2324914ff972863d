"""Runs of the real command on data and rewards of a user's own: texts, tables, streams, and what a reward logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refinerl import train
from tiny import write_tiny
from toy import Toy, metrics, rollouts, timeless

CSV = "prompt,wanted\n" + "".join(f"{word},{word[0]}\n" for word in ("abc", "bcd", "cde", "fgh", "gab", "hhh", "dad"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A model whose tokenizer has no chat template, with prompts that are texts."""
    folder = tmp_path_factory.mktemp("base")
    write_tiny(folder / "model", alphabet="abcdefgh <>/\nrsopn", chat_template=None, scale=0.1)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": word}) + "\n" for word in ("ab", "cd", "ef")))
    return Toy(folder)


def seen(prompts: Any, completions: Any, trainer_state: Any, log_extra: Any, log_metric: Any, **_: Any) -> list[float]:
    """Reward the letter “a” in texts, and log the step."""
    assert all(isinstance(text, str) for text in [*prompts, *completions])
    log_extra("asked", prompts)
    log_metric("step", trainer_state.global_step)
    return [text.count("a") / 6 for text in completions]


def test_a_base_model_continues_texts_and_the_refiner_corrects_them(base: Toy, tmp_path: Path) -> None:
    options = ["algorithm.dynamic_sampling=false", "refiner.max_tokens=8"]
    assert base.run(tmp_path / "run", *options, reward="test_data_runs:seen") == 0
    written = rollouts(tmp_path / "run", 2)
    assert {row["prompt"]["text"] for row in written} <= {"ab", "cd", "ef"}
    assert all("messages" not in row["prompt"] for row in written)
    assert all(row["reward"]["extra"] == {"asked": row["prompt"]["text"]} for row in written)
    assert any(row["refinement"] is not None for row in written)
    assert [row["logged/step"] for row in metrics(tmp_path / "run")] == [0, 1]


def test_a_conversation_needs_a_chat_template(base: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert base.run(tmp_path / "run", "task.prompt_format=chat") == 2
    assert "has no chat template: give one with chat_template=" in capsys.readouterr().err


def test_texts_for_a_model_that_chats_are_pointed_out(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(CSV)
    options = [f"task.path={path}", "trainer.steps=1"]
    assert toy.run(tmp_path / "text", *options, reward="toy_rewards:by_column") == 0
    assert "without its chat template: give messages, or task.prompt_format=chat" in " ".join(
        capsys.readouterr().out.split()
    )
    assert all("messages" not in row["prompt"] for row in rollouts(tmp_path / "text", 1))
    assert toy.run(tmp_path / "chat", *options, "task.system=a", reward="toy_rewards:by_column") == 0
    assert "chat template" not in capsys.readouterr().out
    assert all(row["prompt"]["messages"][0]["role"] == "system" for row in rollouts(tmp_path / "chat", 1))


def test_a_stream_resumes_where_it_was(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(CSV)
    options = [f"task.path={path}", "task.streaming=true", "algorithm.dynamic_sampling=false"]
    run = tmp_path / "run"
    assert train.main([*toy.arguments(run, *options), "--dry-run"]) == 0
    assert f"# data: {path}, read during the run" in capsys.readouterr().out
    assert toy.run(tmp_path / "whole", *options, "trainer.steps=4") == 0
    assert toy.run(run, *options, "trainer.steps=2") == 0
    assert toy.run(run, *options, "trainer.steps=4", resume=True) == 0
    assert timeless(run)[2:] == timeless(tmp_path / "whole")[2:]
    texts = [rollouts(tmp_path / "whole", step)[0]["prompt"]["text"] for step in range(1, 5)]
    assert texts != ["abc", "bcd", "cde", "fgh"]
    assert toy.run(tmp_path / "once", *options, "trainer.steps=9", "trainer.epochs=1") == 0
    assert "the data ended after trainer.epochs = 1 passes" in capsys.readouterr().out


def test_a_subset_that_does_not_exist(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "sums"
    rows.mkdir()
    (rows / "main.jsonl").write_text('{"prompt": "ab"}\n')
    (rows / "README.md").write_text("---\nconfigs:\n- config_name: main\n  data_files: main.jsonl\n---\n")
    assert toy.run(tmp_path / "run", f"task.path={rows}", "task.subset=nain") == 2
    assert "has no subset nain; its subsets are main: task.subset=main" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""What `refinerl.evaluate RUN --benchmark task` asks for: the run's own way, unless an option says otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from refinerl import evaluate
from refinerl.benchmarks.arguments import parse
from refinerl.config import Config
from refinerl.errors import UserError
from refinerl.run import arguments, held_out, recipe
from toy import Toy

GSM8K = ("smollm", "task.name=dialogue", "task.path=hub:openai/gsm8k", "task.subset=main", "task.reward=rule:answer")
SAMPLED = ("evaluate.every=1", "evaluate.n=4", "evaluate.temperature=0.7")


def configured(run: Path, words: tuple[str, ...], *options: str) -> Config:
    """Return the configuration of an evaluation of a run that was started with `words`."""
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(recipe.to_yaml(recipe.load(*arguments.split([*words]))))
    return held_out._config(run, parse([str(run), "--benchmark", "task", *options]), "cpu")


@pytest.mark.parametrize(
    ("options", "n", "temperature"),
    [
        ([], 4, 0.7),
        (["--temperature", "0"], 1, 0.0),
        (["--n", "2"], 2, 0.7),
        (["--temperature", "1"], 4, 1.0),
        (["--n", "1"], 1, 0.7),
    ],
)
def test_answers_are_sampled_as_in_the_run_unless_an_option_says_otherwise(
    tmp_path: Path, options: list[str], n: int, temperature: float
) -> None:
    """`--temperature 0` was taken for no option."""
    words = (*GSM8K, *SAMPLED, "evaluate.path=held_out.jsonl")
    found = configured(tmp_path / "run", words, *options).evaluate
    assert (found.n, found.temperature) == (n, temperature)


def test_a_result_without_a_value_is_said() -> None:
    """It was `reward: nan`."""
    found = {"evaluate/reward": math.nan, "evaluate/reward_low": math.nan, "evaluate/reward_high": math.nan}
    assert held_out.lines(found) == ["reward: none, because no row has one"]


def test_several_greedy_samples_are_refused(tmp_path: Path) -> None:
    words = (*GSM8K, "evaluate.every=1", "evaluate.path=held_out.jsonl")
    for options in (["--n", "2"], ["--n", "2", "--temperature", "0"]):
        with pytest.raises(UserError, match="--n 2 needs a --temperature above 0"):
            configured(tmp_path / "run", words, *options)
    with pytest.raises(UserError, match=r"--top-p 0\.5 needs a --temperature above 0"):
        configured(tmp_path / "run", words, "--top-p", "0.5")


def test_the_data_of_the_run_keep_the_split_that_it_measured(tmp_path: Path) -> None:
    """They would be those that it was trained on."""
    words = (*GSM8K, *SAMPLED, "evaluate.path=hub:openai/gsm8k", "evaluate.split=test")
    for options in ([], ["--data", "hub:openai/gsm8k"]):
        task = configured(tmp_path / "run", words, *options).task
        assert (task.path, task.split, task.subset) == ("hub:openai/gsm8k", "test", "main")  # type: ignore[attr-defined]
    other = configured(tmp_path / "run", words, "--data", "more.jsonl").task
    assert other.path == "more.jsonl"  # type: ignore[attr-defined]
    task = configured(tmp_path / "run", words, "--data", "hub:a/b", "--split", "dev", "--subset", "x").task
    assert (task.path, task.split, task.subset) == ("hub:a/b", "dev", "x")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"--split is for data sets, and more\.jsonl has none"):
        configured(tmp_path / "run", words, "--data", "more.jsonl", "--split", "dev")


def test_the_limit_of_the_run_is_for_its_own_rows(tmp_path: Path) -> None:
    """Other rows were cut to as many, and so were all rows by the limit of another benchmark."""
    words = (*GSM8K, *SAMPLED, "evaluate.path=held_out.jsonl", "evaluate.limit=64")
    options = ([], ["--data", "held_out.jsonl"], ["--data", "more.jsonl"], ["--data", "more.jsonl", "--limit", "5"])
    limits = [configured(tmp_path / "run", words, *each).evaluate.limit for each in options]
    assert limits == [64, 64, None, 5]
    words = (*GSM8K, "evaluate.every=1", "evaluate.benchmark=humaneval+", "evaluate.limit=20")
    assert configured(tmp_path / "run", words, "--data", "more.jsonl").evaluate.limit is None


def test_a_seed_of_0_is_an_option(tmp_path: Path) -> None:
    words = (*GSM8K, *SAMPLED, "evaluate.path=held_out.jsonl", "seed=7")
    assert [configured(tmp_path / "run", words, *seed).seed for seed in ([], ["--seed", "0"])] == [7, 0]


@pytest.mark.parametrize("option", [["--compare", "apps"], ["--compare", "strict"], ["--memory-mb", "99"]])
def test_options_that_it_does_not_read_are_refused(option: list[str]) -> None:
    with pytest.raises(UserError, match=f"{option[0]} is for benchmarks; --benchmark task is judged as in the run"):
        parse(["runs/a", "--benchmark", "task", *option])
    assert parse(["x", "--benchmark", "apps", *option]).seed == 0


def evaluated(run: Path, *options: str) -> int:
    words = [str(run), "--benchmark", "task", "--device", "cpu"]
    return evaluate.main([*words, *options])


def test_the_results_of_another_evaluation_are_not_overwritten(toy: Toy, tmp_path: Path, capsys) -> None:
    """They were, without a word; and `--data` was called evaluate.path."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "cab"}\n{"prompt": "bad"}\n')
    run, output = tmp_path / "run", tmp_path / "results"
    assert toy.run(run, "trainer.steps=1") == 0
    options = ["--data", str(rows), "--output", str(output)]
    assert evaluated(run, *options) == 0
    assert "rows: 2\n" in capsys.readouterr().out
    assert evaluated(run, *options[:2], "--limit", "1") == 0
    assert "rows: the first 1 of 2\n" in capsys.readouterr().out
    summary = (output / "summary.json").read_text()
    assert evaluated(run, *options) == 0  # the same one again
    capsys.readouterr()
    assert evaluated(run, *options, "--limit", "1") == 2
    assert f"{output} has an evaluation with other settings: limit was null and is 1. " in capsys.readouterr().err
    assert (output / "summary.json").read_text().partition("seconds")[0] == summary.partition("seconds")[0]
    assert evaluated(run / "checkpoint-9", *options[:2]) == 2
    assert f"there is no folder {run / 'checkpoint-9'}" in capsys.readouterr().err
    rows.write_text('{"prompt": 3}\n')
    assert evaluated(run, "--data", str(rows)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --data {rows}, read as task.name=dialogue: {rows}:1: the field prompt must be")

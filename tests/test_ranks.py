"""Whole runs on two ranks: the same run as on one, and one that dies ends them all and can go on."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from launching import Launcher, launch, needs_deepspeed
from toy import Toy, rollouts, timeless

pytestmark = [needs_deepspeed, pytest.mark.slow]

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
def one(toy: Toy, tmp_path_factory) -> Path:
    """The run in one process, with PyTorch."""
    output = tmp_path_factory.mktemp("one") / "run"
    assert toy.run(output, *RUN) == 0
    return output


@pytest.fixture(scope="module")
def two(toy: Toy, tmp_path_factory) -> Path:
    """The same on two ranks, by DeepSpeed's launcher."""
    output = tmp_path_factory.mktemp("two") / "run"
    done = launch("deepspeed", *toy.arguments(output, *RUN, *ZERO_2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3/3") == 1
    return output


def same_curve(mine: Path, theirs: Path) -> None:
    for row, other in zip(timeless(mine), timeless(theirs), strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            near = value if value is None else pytest.approx(value, abs=1e-4, rel=1e-4)
            assert row[name] == near, name


def samples(output: Path, step: int) -> list[tuple[object, ...]]:
    rows = rollouts(output, step)
    return sorted(
        (r["prompt"]["id"], r["sample"], r["completion"]["text"], r["reward"]["value"], str(r["refinement"]))
        for r in rows
    )


def test_two_ranks_are_the_run_of_one(one: Path, two: Path):
    """DAPO with dynamic sampling and the dynamic constraint: prompts, samples, refinements, metrics."""
    same_curve(two, one)
    for step in (1, 2, 3):
        assert samples(two, step) == samples(one, step)
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


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (make setup says why)")
def test_vllm_and_deepspeed_on_two_ranks_resume_to_the_same_curve(wide_toy: Toy, tmp_path):
    """DeepSpeed's launcher, ZeRO-2, two vLLM engines on each rank, the dynamic constraint."""
    options = [*RUN, *ZERO_2, "engines.generator=vllm", "algorithm.dynamic_sampling=false"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = launch("deepspeed", *wide_toy.arguments(whole, *options), timeout=400)
    assert done.returncode == 0, done.stderr
    script = Path(__file__).with_name("dying.py")
    killed = launch(
        "torchrun",
        *wide_toy.arguments(parts, *options),
        script=script,
        timeout=400,
        DIE_IN="update of step 3",
        DIE_RANK="1",
    )
    assert killed.returncode != 0
    done = launch("torchrun", *wide_toy.arguments(parts, *options), "--resume", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2" in done.stdout
    same_curve(parts, whole)
    assert wide_toy.run(tmp_path / "twin", *RUN, "algorithm.dynamic_sampling=false", "trainer.steps=1") == 0
    assert timeless(whole)[0].keys() == timeless(tmp_path / "twin")[0].keys()
    assert timeless(whole)[0]["policy/mismatch_max"] < 1e-3
    assert AutoModelForCausalLM.from_pretrained(whole / "final").num_parameters() > 0


def test_killed_in_every_phase_and_resumed_each_time_is_the_run_that_was_not(toy: Toy, two: Path, tmp_path):
    output = tmp_path / "run"
    arguments = [*toy.arguments(output, *RUN, *ZERO_2), "--resume"]
    deaths: list[tuple[str, int, Launcher]] = [
        ("generate of step 1", 1, "torchrun"),
        ("score of step 2", 0, "deepspeed"),
        ("refine of step 2", 1, "deepspeed"),
        ("update of step 3", 1, "torchrun"),
        ("sync of step 3", 0, "torchrun"),
        ("checkpoint-3", 1, "deepspeed"),
    ]
    for phase, rank, launcher in deaths:
        started = time.monotonic()
        script = Path(__file__).with_name("dying.py")
        killed = launch(launcher, *arguments, script=script, timeout=150, DIE_IN=phase, DIE_RANK=str(rank))
        assert killed.returncode != 0
        assert f"rank {rank} died in phase {phase}" in killed.stderr
        assert time.monotonic() - started < 140
    done = launch("torchrun", *arguments)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2" in done.stdout
    same_curve(output, two)
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def test_a_rank_that_hangs_ends_the_run_after_the_timeout(toy: Toy, tmp_path):
    arguments = toy.arguments(
        tmp_path / "run", *ZERO_2, "engines.timeout=5", reward="toy_rewards:hangs_on_the_second_rank"
    )
    done = launch("torchrun", *arguments, timeout=150)
    assert done.returncode != 0
    assert "engines.timeout = 5 seconds" in done.stderr
    assert "Traceback" in done.stderr


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


def test_another_number_of_ranks_does_not_go_on(toy: Toy, two: Path):
    before = (two / "metrics.jsonl").read_text()
    done = launch(None, *toy.arguments(two, *RUN, *ZERO_2, "trainer.steps=4"), "--resume")
    assert done.returncode == 2
    assert "written by 2 ranks" in done.stderr
    assert "--num_accelerators 2" in done.stderr
    assert (two / "metrics.jsonl").read_text() == before

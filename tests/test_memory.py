"""What runs out of memory is told how to get by with less, and the plan's arithmetic is what ranks really hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from launching import launch, needs_deepspeed
from refinerl import plan, recipe
from refinerl.errors import TrainingStoppedError
from refinerl.memory import KNOBS, explained, shares
from toy import Toy, metrics


@pytest.mark.parametrize(
    ("phase", "knob"),
    [("generate", "generation.max_batch"), ("update", "trainer.micro_batch_tokens"), ("load model", "dtype=bfloat16")],
)
def test_an_allocation_that_fails_names_phase_and_knob(phase, knob):
    with pytest.raises(TrainingStoppedError, match=f"out of memory in phase {phase}: lower .*{knob}"), explained(phase):
        torch.empty(2**50)
    with pytest.raises(TrainingStoppedError, match=knob), explained(phase):
        bytearray(2**50)


def test_other_errors_come_through():
    with pytest.raises(RuntimeError, match="shape") as raised, explained("update"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not isinstance(raised.value, TrainingStoppedError)


def test_a_run_says_it_and_ends_calmly(toy: Toy, tmp_path, capsys):
    assert toy.run(tmp_path / "run", reward="toy_rewards:wants_more_memory_than_there_is") == 1
    assert "out of memory in phase score: lower sandbox.workers" in capsys.readouterr().err


def test_what_the_messages_name_may_be_turned_when_the_run_goes_on(toy: Toy, tmp_path, capsys):
    """All that does not say that it needs a new run."""
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    values = {
        "generation.max_batch": "4",
        "trainer.micro_batch_tokens": "64",
        "trainer.gradient_checkpointing": "true",
        "engines.offload_reference": "true",
        "sandbox.workers": "1",
        "vllm.memory_policy": "0.2",
        "vllm.memory_refiner": "0.1",
    }
    named = {
        knob for text in KNOBS.values() for knob in re.findall(r"[a-z]+\.[a-z_]+", text.partition("in a new run")[0])
    }
    assert named == values.keys()
    turned = [f"{knob}={value}" for knob, value in values.items()]
    assert toy.run(tmp_path / "run", "trainer.steps=2", *turned, resume=True) == 0
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    assert toy.run(tmp_path / "run", "generation.max_tokens=4", resume=True) == 2
    assert "generation.max_tokens: 6 -> 4" in capsys.readouterr().err


def test_shares_by_hand():
    """Float32: 4 weights, 4 gradients, 8 moments; ZeRO adds 4 of weights that the optimizer steps on."""
    assert shares(100, 4).total == 1600
    assert shares(100, 4, stage=2, ranks=4).total == 400 + 100 + 300
    assert shares(100, 4, stage=3, ranks=4).total == 100 + 100 + 300
    half = shares(100, 2, stage=1, ranks=4, master=True)
    assert (half.weights, half.gradients, half.optimizer) == (200, 200, 300)


TRAINED = {"PPO, dialogue": (3.21e9, 7.5e9), "PPO, APPS": (3.21e9, 3.21e9), "DAPO, APPS": (1.54e9,)}
"""Policy and critic."""


def test_the_table_of_the_papers_runs_is_the_formula():
    """Beside what learns: the reference, of the policy's size, and for dialogues the whole reward model."""
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    rows = re.findall(r"^\| ((?:PPO|DAPO), \w+): [^|]+ \| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert [(run, ranks) for run, ranks, *_ in rows] == [(run, n) for run in TRAINED for n in "48"]
    for run, ranks, *columns in rows:
        for (stage, offloaded), told in zip([(2, False), (3, False), (3, True)], columns, strict=True):
            learning = [shares(int(p), 2, stage=stage, ranks=int(ranks), master=True) for p in TRAINED[run]]
            size = sum(s.total - offloaded * s.optimizer for s in learning)
            size += 2 * TRAINED[run][0] / (int(ranks) if stage == 3 else 1)
            size += 2 * 7.5e9 * (run == "PPO, dialogue")
            assert float(told) == pytest.approx(size / 2**30, abs=0.051), (run, ranks, stage)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["engines.generator=vllm"], ["policy 0.7 GiB", "reference 0.7 GiB", "vLLM's weights 12.0 GiB"]),
        (["engines.generator=vllm", "vllm.tensor_parallel=2"], ["reference 0.7 GiB", "vLLM's weights 6.0 GiB"]),
        ([], ["policy 0.7 GiB", "reference and refiner 6.0 GiB", "the weights that generate 6.0 GiB"]),
        (["engines.offload_reference=true"], ["the reference while it is used 6.0 GiB"]),
        (["lora.rank=8"], ["policy, reference and refiner 0.7 GiB", "the weights that generate 6.0 GiB"]),
    ],
)
def test_the_plan_of_eight_ranks_counts_weights_where_they_lie(monkeypatch, overrides, told):
    """ZeRO-3 with a model of 3.21 B in bfloat16."""
    monkeypatch.setattr(plan, "parameters", lambda _: 3_210_000_000)
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    zero_3 = ["dtype=bfloat16", "engines.trainer=deepspeed", "deepspeed.zero_optimization.stage=3"]
    (line,) = [line for line in plan.plan(recipe.load("demo", [*zero_3, *overrides]), 30) if line.startswith("memory")]
    for part in told:
        assert part in line


@needs_deepspeed
@pytest.mark.slow
def test_two_ranks_hold_what_the_formula_says(tmp_path):
    """With a small bucket, which stage 3 keeps: docs/scaling.md counts it apart."""
    small = {"reduce_bucket_size": 17_000}
    stages = {0: {}, 2: {"zero_optimization": {"stage": 2, **small}}}
    stages[3] = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, **small}}
    cases = [json.dumps({"name": str(stage), "deepspeed": native, "measure": True}) for stage, native in stages.items()]
    script = Path(__file__).with_name("training_ranks.py")
    done = launch("torchrun", str(tmp_path), *cases, script=script, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found-2.json").read_text())
    for stage in stages:
        measured = found[str(stage)]
        expected = shares(measured["parameters"], 4, stage=stage, ranks=2)
        between = 0 if stage < 3 else expected.gradients  # stage 3 keeps their buffer
        assert measured["after_step"] == pytest.approx(expected.weights + expected.optimizer + between, rel=0.05)
        assert measured["with_gradient"] == pytest.approx(expected.total, rel=0.05)

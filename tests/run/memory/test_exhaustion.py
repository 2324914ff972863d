"""A phase that runs out of memory says how to get by with less."""

from __future__ import annotations

import re

import pytest
import torch

from refinerl.errors import TrainingStoppedError
from refinerl.run.memory import KNOBS, explained
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
        "trainer.share_prefixes": "never",
        "engines.offload_reference": "true",
        "sandbox.workers": "1",
        "reward_model.batch": "1",
        "reward_model.device": "cpu",
        "vllm.memory_policy": "0.2",
        "vllm.memory_refiner": "0.1",
    }
    named = {
        knob for text in KNOBS.values() for knob in re.findall(r"[a-z_]+\.[a-z_]+", text.partition("in a new run")[0])
    }
    assert named == values.keys()
    turned = [f"{knob}={value}" for knob, value in values.items()] + ["device_memory=80", "plan.gpus=2"]
    assert toy.run(tmp_path / "run", "trainer.steps=2", *turned, resume=True) == 0
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    assert toy.run(tmp_path / "run", "generation.max_tokens=4", resume=True) == 2
    assert "generation.max_tokens: 6 -> 4" in capsys.readouterr().err

"""A reward model whose device runs out of memory: one message with the knob, and a resumed run with a smaller batch."""

from __future__ import annotations

from pathlib import Path

import pytest

import pretend_device
from chaos.cases import MEMORY
from chaos.runs import Case, Server, check
from tiny import write_openrlhf_reward_model
from toy import Toy, metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretend_device.compiler() is None, reason="no C++ compiler for the pretend device"),
]
FLAGS = ("--pretend",)
RUN = (
    "device=cpu",
    "reward_model.device=pretend",
    "trainer.steps=3",
    "checkpoint.every=1",
    "constraint.accept=all",
    "algorithm.dynamic_sampling=false",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a reward model."""
    pretend_device.build()
    return write_openrlhf_reward_model(tmp_path_factory.mktemp("model") / "model", alphabet="abcdefgh ")


@pytest.mark.parametrize("case", MEMORY, ids=lambda case: case.name)
def test_a_reward_model_without_memory(server: Server, toy: Toy, model: Path, tmp_path: Path, case: Case):
    arguments = [*toy.arguments(tmp_path / "run", *RUN, f"reward_model.model={model}", reward="model"), "--resume"]
    end, err, _ = server.run(arguments, case=case)
    check(case, end, err)
    end, err, out = server.run([*arguments, "reward_model.batch=2"])
    assert end["codes"] == [0], err
    assert ("resuming after step 1" in out) == (case.name == "memory-score")
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3]

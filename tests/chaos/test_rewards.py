"""Reward functions that hang, raise, quit or return nonsense: one message, and a run that can be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cases import REWARDS
from chaos.runs import Case, Server, check
from toy import Toy, metrics, timeless

pytestmark = pytest.mark.slow
FLAGS = ()
RUN = (
    "trainer.steps=3",
    "checkpoint.every=1",
    "constraint.accept=all",
    "algorithm.dynamic_sampling=false",
    "device=cpu",
)


def arguments(toy: Toy, output: Path, *overrides: str) -> list[str]:
    return [*toy.arguments(output, *RUN, *overrides, reward="chaos.rewards:reward"), "--resume"]


@pytest.fixture(scope="module")
def whole(server: Server, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run without a failure, for comparison."""
    output = tmp_path_factory.mktemp("whole") / "run"
    end, err, _ = server.run(arguments(toy, output))
    assert end["codes"] == [0], err
    return output


@pytest.mark.parametrize("case", REWARDS, ids=lambda case: case.name)
def test_a_reward_function(server: Server, toy: Toy, whole: Path, tmp_path: Path, case: Case):
    end, err, _ = server.run(arguments(toy, tmp_path / "run", *case.overrides), case=case)
    check(case, end, err)
    end, err, out = server.run(arguments(toy, tmp_path / "run"))
    assert end["codes"] == [0], err
    if not case.says:  # these rewards are valid, although the policy learns nothing from them
        assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3]
        return
    assert "resuming after step 1" in out
    assert timeless(tmp_path / "run") == timeless(whole)

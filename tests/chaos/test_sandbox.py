"""Processes of the sandbox that are killed or stopped while it judges: the run continues, with the same verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cases import SANDBOX
from chaos.runs import Case, Server, check
from toy import Toy, rollouts, timeless, write_problems

pytestmark = pytest.mark.slow
FLAGS = ()
RUN = (
    "device=cpu",
    "task.name=code",
    "generation.max_tokens=2",
    "trainer.steps=2",
    "checkpoint.every=1",
    "constraint.accept=all",
    "algorithm.dynamic_sampling=false",
    "sandbox.workers=2",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the options of all runs."""
    return (*RUN, f"task.path={write_problems(tmp_path_factory.mktemp('problems'))}")


@pytest.fixture(scope="module")
def whole(server: Server, toy: Toy, run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run without a failure, for comparison."""
    output = tmp_path_factory.mktemp("whole") / "run"
    end, err, _ = server.run(toy.arguments(output, *run, reward="adaptive"))
    assert end["codes"] == [0], err
    return output


@pytest.mark.parametrize("case", SANDBOX, ids=lambda case: case.name)
def test_a_process_of_the_sandbox(
    server: Server, toy: Toy, run: tuple[str, ...], whole: Path, tmp_path: Path, case: Case
):
    end, err, _ = server.run(toy.arguments(tmp_path / "run", *run, reward="adaptive"), case=case)
    check(case, end, err)
    assert timeless(tmp_path / "run") == timeless(whole)
    for step in (1, 2):
        assert rollouts(tmp_path / "run", step) == rollouts(whole, step)

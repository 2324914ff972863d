"""Studies for tests: files, runs of the toy, records and results without runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launching import environment
from refinerl.study import command
from refinerl.study.plan import Plan
from refinerl.study.record import Record
from refinerl.study.results import Result
from toy import TOY, Toy

GOOD = """\
title: Two arms
recipe: smollm
set: {trainer.steps: 4}
seeds: [0, 1]
arms:
  none: {constraint.name: none}
  dynamic: {constraint.beta: 1e-3, grid: {constraint.beta: [1e-2, 0.3], trainer.epochs: [1, 2]}}
tuning: {seeds: [100, 101], trainer.steps: 3}
compare: [[dynamic, none]]
"""
"""A study's file with all that a file may have."""


@contextlib.contextmanager
def rewards_found() -> Iterator[None]:
    """Let runs in processes of their own find the tests' rewards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        yield


def values(toy: Toy, **changes: Any) -> dict[str, Any]:
    """Return the values of a study's file; a change to None removes a key."""
    knobs = {key: yaml.safe_load(value) for key, value in (word.split("=") for word in TOY)}
    knobs |= {
        "model": str(toy.folder / "model"),
        "task.name": "dialogue",
        "task.path": str(toy.folder / "prompts.jsonl"),
        "task.reward": "toy_rewards:share_of_a",
        "trainer.learning_rate": 0.005,
        "constraint.accept_truncated": True,
        "device": "cpu",
    }
    found = {
        "title": "Two arms of the toy",
        "recipe": "smollm",
        "set": knobs,
        "seeds": [0, 1],
        "arms": {"none": {"constraint.name": "none"}, "dynamic": {"grid": {"constraint.beta": [0.01, 0.1]}}},
        "tuning": {"seeds": [100], "measure": "reward_end", "trainer.steps": 1},
        "compare": [["dynamic", "none"]],
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


def write(path: Path, values: dict[str, Any]) -> str:
    """Write a study's file; return its path."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def run_here(toy: Toy, source: str, output: Path) -> None:
    """Make the study's folder with all its runs but the tuning's, in this process."""
    plan = Plan.make(source)
    for arm in plan.arms:
        for seed in plan.seeds:
            assert toy_run(plan, arm, seed, output) == 0


def toy_run(plan: Plan, arm: str, seed: int, output: Path) -> int:
    """Make one run of a study in this process; return the exit code."""
    from refinerl import train

    trial = plan.final(arm, seed, {})
    return train.main([*trial.arguments, "--output-dir", str(output / trial.folder)])


def study(*arguments: object) -> int:
    """Run the command in this process; return the exit code."""
    return command.main([str(argument) for argument in arguments])


def record(**changes: Any) -> Record:
    """Return a record of two arms and three seeds."""
    known = {
        "study": "s",
        "refinerl": "0",
        "sources": "x",
        "title": "A <title> | with signs",
        "recipe": "smollm",
        "seeds": (0, 1, 2),
        "arms": {"none": {}, "dynamic": {}},
        "compare": (("dynamic", "none"),),
    }
    return Record(**{**known, **changes})


def result(arm: str, seed: int, **measures: float) -> Result:
    """Return a run with these measures, without rows."""
    return Result(arm, seed, Path(arm) / f"seed-{seed}", [], measures)

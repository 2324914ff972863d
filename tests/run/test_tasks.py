"""Rewards and tasks of a run, as the configuration asks for them."""

from __future__ import annotations

import pytest

from refinerl.run import arguments, recipe, tasks

MATH = ("smollm", "task.name=dialogue", "task.path=prompts.jsonl", "task.reward=rule:math")


@pytest.mark.parametrize(("workers", "cores", "processes"), [(8, 2, 2), (1, 2, 1), (0, 3, 3)])
def test_math_verify_has_at_most_as_many_processes_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, processes: int
) -> None:
    """Others would wait for a core, and be ended for the time that they waited."""
    monkeypatch.setattr(tasks, "cores", lambda: cores)
    config = recipe.load(*arguments.split([*MATH, f"sandbox.workers={workers}"]))
    reward = tasks.make_dialogue_reward("rule:math", config)
    assert len(reward._judges._idle) == processes  # type: ignore[union-attr]

"""Checks of knobs in different sections against each other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from refinerl.data.tables import has_splits

if TYPE_CHECKING:
    from refinerl.config import Config


def check(config: Config) -> None:
    """Refuse knobs that contradict each other.

    Raises:
        ValueError: two knobs contradict each other.
    """
    if config.trainer.batch % config.trainer.minibatch:
        raise ValueError(
            f"trainer.minibatch must divide trainer.batch = {config.trainer.batch}, got {config.trainer.minibatch}"
        )
    samples = config.algorithm.samples_per_prompt
    if config.trainer.batch % samples:
        raise ValueError(
            f"trainer.batch must be a multiple of algorithm.samples_per_prompt = {samples}, got {config.trainer.batch}"
        )
    cache = getattr(config.algorithm, "overlong_cache", 0)
    if cache >= config.generation.max_tokens:
        raise ValueError(
            f"algorithm.overlong_cache must be less than generation.max_tokens = {config.generation.max_tokens}, "
            f"got {cache}"
        )
    _check_evaluation(config)
    _check_reward(config)
    _check_constraints(config)
    if config.on_dropped and not getattr(config.algorithm, "dynamic_sampling", False):
        raise ValueError(f"{_knob(config, 'on_dropped')} must be false unless dapo's dynamic sampling drops groups")


def _knob(config: Config, option: str) -> str:
    """Return the dotted name of an option of the first constraint that has it set."""
    if not config.constraints:
        return f"constraint.{option}"
    index = next((i for i, c in enumerate(config.constraints) if getattr(c, option, False)), 0)
    return f"constraints.{index}.{option}"


def _check_evaluation(config: Config) -> None:
    e, task = config.evaluate, config.task
    if e.n > 1 and e.temperature == 0:
        raise ValueError("evaluate.temperature must be above 0 for evaluate.n above 1: greedy samples are all the same")
    if config.checkpoint.final == "best" and not 0 < e.every <= config.trainer.steps:
        raise ValueError(
            f"checkpoint.final=best needs evaluations: choose an evaluate.every from 1 to trainer.steps = "
            f"{config.trainer.steps}, got {e.every}, or checkpoint.final=last"
        )
    if e.benchmark != "task":
        if e.path is not None:
            raise ValueError(
                f"evaluate.path is read with evaluate.benchmark=task only, got evaluate.benchmark={e.benchmark}; the "
                "files of a benchmark are named by evaluate.data"
            )
        return
    if e.path is None:
        raise ValueError(
            "evaluate.path must be given for evaluate.benchmark=task: a file of rows like those of task.path, such as "
            "evaluate.path=held_out.jsonl"
        )
    if e.data is not None:
        raise ValueError("evaluate.data is for benchmarks; with evaluate.benchmark=task give evaluate.path alone")
    if "path" not in type(task).model_fields:
        raise ValueError(
            f"evaluate.benchmark=task needs a task that reads a file: the options of task.name={task.name} have no "
            "`path`, which evaluate.path would replace"
        )
    _check_held_out(config, e.path)


def _check_held_out(config: Config, path: str) -> None:
    """Refuse knobs of data sets that `evaluate.path` does not have, and the split that the run is trained on."""
    e, task = config.evaluate, config.task
    chooses = "split" in type(task).model_fields and has_splits(path)
    for name, value in (("split", e.split), ("subset", e.subset)):
        if value is not None and not chooses:
            raise ValueError(f"evaluate.{name} is for data sets: evaluate.path = {path} has none; leave it out")
    ours, theirs = (getattr(task, "split", None), getattr(task, "subset", None)), (e.split, e.subset)
    same = all(their in (None, our) for our, their in zip(ours, theirs, strict=True))
    if choice := _trained_on(task).get(path):
        raise ValueError(
            f"evaluate.path = {path} has problems that the run is trained on, the embedded ones: choose {choice}"
        )
    if not _same_place(path, getattr(task, "path", None)):
        return
    if chooses and same:
        raise ValueError(
            f"evaluate.path = {path} is the split {ours[0]} that the run is trained on: choose another, such as "
            "evaluate.split=test"
        )
    if not chooses:
        raise ValueError(
            "evaluate.path must be another file than task.path, whose rows the run is trained on, "
            f"got {path} for both: put rows aside in a file of their own, such as evaluate.path=held_out.jsonl"
        )


def _trained_on(task: object) -> dict[str, str]:
    """Return the shipped files whose problems are among the embedded ones, and for each the choice that parts them."""
    embedded = getattr(task, "embedded", None)
    if embedded is None or getattr(task, "path", None) is not None:
        return {}
    if embedded == "miniature":
        return {"shipped:miniature": "evaluate.path=shipped:miniature-held-out"}
    return {
        "shipped:problems-held-out": "task.path=shipped:problems-train",
        "shipped:problems-train": "task.path=shipped:problems-held-out",
    }


def _same_place(path: str, other: str | None) -> bool:
    """Return True if two paths name the same file, or are the same name of the hub or of shipped data."""
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def _check_constraints(config: Config) -> None:
    names = [c.name for c in config.held]
    if "peer" in names and config.algorithm.samples_per_prompt < 2:
        raise ValueError(
            "algorithm.samples_per_prompt must be at least 2, such as 8, for constraint.name=peer, whose targets are "
            "other responses to the same prompt"
        )
    if "fresh" in names and config.refiner.source != "reference":
        raise ValueError(
            f"refiner.source must be reference for constraint.name=fresh, got {config.refiner.source}: "
            "its answers are the reference's"
        )
    if len(config.refining) > 1:
        refining = " and ".join(c.name for c in config.refining)
        raise ValueError(f"constraints must hold at most one that refines, got {refining}")
    if len({c.penalty_in_group for c in config.held if c.apply == "reward"}) > 1:
        raise ValueError("constraints that apply in the reward must have the same penalty_in_group")


def _check_reward(config: Config) -> None:
    if "model" in config.task.rewards and config.reward_model.model is None:
        raise ValueError("reward_model.model must be given for task.reward=model: a hub id or a folder")
    for knob, accept in (
        (_knob(config, "accept"), config.accept),
        ("refiner.probe_accept", config.refiner.probe_accept),
    ):
        if accept == "perfect" and not config.task.bounded:
            raise ValueError(f"{knob} must be better or all where the reward has no known highest value")

"""Held-out rows, with a generator and a task whose answers and rewards are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from refinerl.benchmarks.estimate import average, share
from refinerl.benchmarks.held_out import HeldOut
from refinerl.contracts import ALONE, World
from refinerl.records import Completion, Prompt, Reward, Sampling
from refinerl.tasks.base import Task
from threads import on_ranks


class Letters(Task):
    """Asks for a letter; the answer "x" has no reward, and the capital the highest."""

    max_reward = 1.0

    def examples(self):
        return [(letter, letter) for letter in "abcde"]

    def reward(self, known, answer):
        return {known.upper(): 1.0, known: 0.25, "x": None}.get(answer, 0.0)


ANSWERS = {"a": "AA", "b": "Bb", "c": "cx", "d": "xx", "e": "zz"}


class Scripted:
    """Answers each prompt from ANSWERS, one letter for each sample."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.awake = False

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, **_: object) -> list[list[Completion]]:
        assert self.awake
        assert sampling.seeds is not None
        letters = [chr(ids[0]) for ids in prompts]
        self.asked += [(letter, tuple(seeds)) for letter, seeds in zip(letters, sampling.seeds, strict=True)]
        texts = [ANSWERS[letter][: sampling.n] for letter in letters]
        return [[Completion((1,), (0.0,), letter, "stop") for letter in text] for text in texts]

    def wake(self) -> None:
        self.awake = True

    def sleep(self) -> None:
        self.awake = False


def held_out(world: World = ALONE, n: int = 2, limit: int | None = None, most: float | None = 1.0) -> HeldOut:
    task = Letters()
    task.connect(lambda messages: [ord(messages[-1]["content"])])
    task.max_reward = most
    return HeldOut(task, Scripted(), Sampling(4, 1.0, n=n), 7, world, limit)


def test_means_over_rows_of_means_over_samples():
    found = held_out().metrics()
    # a: 1, 1; b: 1, ¼; c: ¼ and one without a reward; d: none; e: 0, 0
    assert found["evaluate/reward"] == pytest.approx((1 + 0.625 + 0.25 + 0) / 4)
    assert found["evaluate/pass@1"] == 1.5 / 4


def test_each_mean_has_its_interval_over_rows():
    found = held_out().metrics()
    reward, passed = average([1, 0.625, 0.25, 0]), share([1, 0.5, 0, 0])
    assert [found[f"evaluate/reward{end}"] for end in ("", "_low", "_high")] == [reward.value, reward.low, reward.high]
    assert [found[f"evaluate/pass@1{end}"] for end in ("", "_low", "_high")] == [passed.value, passed.low, passed.high]


def test_a_task_without_a_highest_reward_has_no_pass_rate():
    assert list(held_out(most=None).metrics()) == ["evaluate/reward", "evaluate/reward_low", "evaluate/reward_high"]


def test_parts_of_a_reward_have_their_own_means():
    """Over the samples that each applies to."""
    evaluation = held_out(most=None)

    def score(prompts, completions):
        return [Reward(1.0, "scored", parts={"right": float(c.text == "A"), "short": None}) for c in completions]

    evaluation.task.score = score
    found = evaluation.metrics()
    assert found["evaluate/reward/right"] == 1 / 5  # a: AA; b: Bb
    assert math.isnan(found["evaluate/reward/short"])


def test_a_row_may_have_a_highest_reward_of_its_own():
    """Where only some of several rules apply to it."""
    evaluation = held_out(n=1)
    evaluation.task.score = lambda prompts, completions: [Reward(0.25, "scored", most=0.25 if c.text == "A" else None)
                                                          for c in completions]  # fmt: skip
    assert evaluation.metrics()["evaluate/pass@1"] == 1 / 5


def test_the_limit_takes_the_first_rows():
    found = held_out(limit=1).metrics()
    assert (found["evaluate/reward"], found["evaluate/pass@1"]) == (1.0, 1.0)
    assert held_out(limit=99).metrics() == held_out().metrics()


def test_rows_without_any_reward_give_no_value():
    assert all(math.isnan(value) for value in HeldOut(**{**vars(held_out()), "task": unscored()}).metrics().values())


def unscored() -> Task:
    task = held_out().task
    task.score = lambda prompts, completions: [None for _ in completions]
    return task


@pytest.mark.parametrize("size", [2, 3, 7])
def test_ranks_share_the_rows_and_agree(size: int):
    alone = held_out()
    expected = alone.metrics()
    parts: list[HeldOut] = []

    def work(world: World) -> dict[str, float]:
        parts.append(held_out(world))
        return parts[-1].metrics()

    assert on_ranks(size, work) == [expected] * size
    assert sorted(row for part in parts for row in part.generator.asked) == sorted(alone.generator.asked)


def test_every_evaluation_draws_the_same_noise():
    first, again = held_out(), held_out()
    first.metrics()
    again.metrics()
    assert first.generator.asked == again.generator.asked
    seeds = [seed for _, row in first.generator.asked for seed in row]
    assert len(set(seeds)) == len(seeds) == 10


def test_telemetry_of_the_task_covers_training_only():
    drained = []
    twin = held_out()
    twin.task.telemetry = lambda: drained.append(True) or {}
    twin.metrics()
    assert drained == [True]


def test_rewards_are_of_the_task():
    task = held_out().task
    (prompt, *_) = task.prompts()
    assert isinstance(prompt, Prompt)
    assert task.score([prompt], [Completion((1,), (0.0,), "A", "stop")]) == [Reward(1.0, "scored")]

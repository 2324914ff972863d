"""Evaluation on rows that a run is not trained on, asked and judged as the run's task does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from refinerl.benchmarks.evaluator import STREAM
from refinerl.contracts import Generator, Task, World
from refinerl.records import Reward, Sampling, sample_seed


@dataclass(frozen=True)
class HeldOut:
    """A task over held-out rows, and the model that answers them.

    Each rank answers and judges its share of the rows. The results are gathered, so that all ranks have the same.
    """

    task: Task
    generator: Generator
    sampling: Sampling
    """Has no seeds; they follow from `seed`, the row and the number of the sample, so every evaluation draws the same
    noise."""
    seed: int
    world: World
    limit: int | None = None
    """Number of rows to use, from the first on. None: all."""

    def metrics(self) -> dict[str, float]:
        """Evaluate; return `evaluate/reward`, and `evaluate/pass@1` if the task has a highest reward.

        Both are means over the rows of the mean over a row's samples; pass@1 counts samples with the highest reward.
        Samples without a reward are left out; a metric without any value is NaN.

        Raises:
            SandboxError: the sandbox failed on too many programs.
        """
        rows = self._rewards()
        most = self.task.max_reward
        found = {"evaluate/reward": _mean(rows, lambda reward: reward.value)}
        if most is not None:
            found["evaluate/pass@1"] = _mean(rows, lambda reward: float(reward.value >= most))
        return found

    def _rewards(self) -> list[list[Reward]]:
        """Return the rewards of the samples of each row, over all ranks."""
        prompts = self.task.prompts()
        count = len(prompts) if self.limit is None else min(self.limit, len(prompts))
        mine = [prompts[i] for i in range(self.world.rank, count, self.world.size)]
        numbers = range(self.sampling.n)
        seeds = [[sample_seed(self.seed, 0, f"{STREAM}/{prompt.id}", n) for n in numbers] for prompt in mine]
        self.generator.wake()
        written = self.generator.generate([p.token_ids for p in mine], replace(self.sampling, seeds=seeds))
        self.generator.sleep()
        asked = [prompt for prompt, row in zip(mine, written, strict=True) for _ in row]
        answers = [completion for row in written for completion in row]
        rewards = iter(self.task.score(asked, answers) if answers else ())
        self.task.telemetry()  # covers training only
        judged = [[reward for _ in row if (reward := next(rewards)) is not None] for row in written]
        return [row for part in self.world.all_gather_object(judged) for row in part]


def _mean(rows: Sequence[Sequence[Reward]], value: Callable[[Reward], float]) -> float:
    means = [math.fsum(map(value, row)) / len(row) for row in rows if row]
    return math.fsum(means) / len(means) if means else math.nan

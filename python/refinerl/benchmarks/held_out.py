"""Evaluation on rows that a run is not trained on, asked and judged as the run's task does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from refinerl.benchmarks.estimate import average, share
from refinerl.benchmarks.evaluator import STREAM, bounds
from refinerl.contracts import Generator, Task, World
from refinerl.errors import UserError
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
    place: str = "held-out rows"
    """Names the rows in messages."""

    def metrics(self) -> dict[str, float]:
        """Evaluate; return `evaluate/reward`, and `evaluate/pass@1` if the task has a highest reward.

        Both are means over the rows of the mean over a row's samples, with their 95 % intervals (`bounds`); pass@1
        counts samples with the highest reward. Where a reward is a sum, `evaluate/reward/NAME` is the mean of each
        part. Samples without a reward are left out; a metric without any value is NaN.

        Raises:
            UserError: an answer to a row cannot be scored.
            SandboxError: the sandbox failed on too many programs.
        """
        rows = self._rewards()
        most = self.task.max_reward
        found = bounds("evaluate/reward", average(_means(rows, lambda reward: reward.value)))
        for name in dict.fromkeys(name for row in rows for reward in row for name in reward.parts):
            found[f"evaluate/reward/{name}"] = average(_means(rows, _part(name))).value
        if most is not None:
            found |= bounds("evaluate/pass@1", share(_means(rows, lambda reward: float(reward.is_highest(most)))))
        return found

    def _rewards(self) -> list[list[Reward]]:
        """Return the rewards of the samples of each row, over all ranks."""
        prompts = self.task.prompts()
        count = len(prompts) if self.limit is None else min(self.limit, len(prompts))
        mine = [prompts[i] for i in range(self.world.rank, count, self.world.size)]
        numbers = range(self.sampling.n)
        seeds = [[sample_seed(self.seed, 0, f"{STREAM}/{prompt.id}", n) for n in numbers] for prompt in mine]
        self.generator.wake()
        written = self.generator.generate(
            [p.token_ids for p in mine],
            replace(self.sampling, seeds=seeds),
            finished=lambda i, _, completion: self.task.expect(mine[i], completion),
        )
        self.generator.sleep()
        asked = [prompt for prompt, row in zip(mine, written, strict=True) for _ in row]
        answers = [completion for row in written for completion in row]
        try:
            rewards = iter(self.task.score(asked, answers) if answers else ())
        except UserError as error:
            raise UserError(f"{self.place}: {error}") from error
        self.task.telemetry()  # covers training only
        judged = [[reward for _ in row if (reward := next(rewards)) is not None] for row in written]
        return [row for part in self.world.all_gather_object(judged) for row in part]


def _means(rows: Sequence[Sequence[Reward]], value: Callable[[Reward], float | None]) -> list[float]:
    """Return the mean over the samples of each row that has a value."""
    found = [[number for reward in row if (number := value(reward)) is not None] for row in rows]
    return [math.fsum(numbers) / len(numbers) for numbers in found if numbers]


def _part(name: str) -> Callable[[Reward], float | None]:
    return lambda reward: reward.parts.get(name)

"""Evaluation of a model on a benchmark: from completions to programs to results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refinerl.benchmarks.estimate import Estimate, estimate
from refinerl.benchmarks.prompting import Prompting
from refinerl.benchmarks.results import passed_counts
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import Result, Sample, Suite, Task
from refinerl.contracts import ALONE, Generator, World
from refinerl.records import Sampling, sample_seed

STREAM = "evaluate"
"""Prefix of the seeds' names, which keeps the noise of evaluation apart from that of training."""


@dataclass(frozen=True)
class Evaluator:
    """A model, a suite, and how the model is asked.

    `sampling` has no seeds. They follow from `seed`, the task and the number of the sample, so that every evaluation
    draws the same noise, at every step of a training run and on any number of ranks.
    """

    scorer: Scorer
    generator: Generator
    prompting: Prompting
    sampling: Sampling
    seed: int
    world: World = ALONE

    def generate(self, tasks: Sequence[Task]) -> list[Sample]:
        """Generate `sampling.n` samples for each task, in order.

        A sample has no program if the prompt fills the model's context. Ranks that share an engine call this together,
        also those without tasks.
        """
        prompts = [self.prompting.tokens(task) for task in tasks]
        fits = [len(tokens) < self.generator.context_length for tokens in prompts]
        chosen = [i for i, fit in enumerate(fits) if fit]
        numbers = range(self.sampling.n)
        seeds = [[self._seed(tasks[i], number) for number in numbers] for i in chosen]
        self.generator.wake()
        alone = self.world.size == 1 and not chosen
        written = [] if alone else self.generator.generate([prompts[i] for i in chosen], self._seeded(seeds))
        self.generator.sleep()
        samples = [[Sample(task.id, number, None) for number in numbers] for task in tasks]
        for i, row in zip(chosen, written, strict=True):
            texts = [completion.text for completion in row]
            samples[i] = [Sample(tasks[i].id, n, self.prompting.program(tasks[i], t), t) for n, t in enumerate(texts)]
        return [sample for row in samples for sample in row]

    def evaluate(self, progress: Callable[[int], None] | None = None) -> list[Result]:
        """Generate samples for the tasks in use and judge them; return the results of all ranks, in the tasks' order.

        Each rank does its share of the tasks. `progress` is called with the number of samples that are done.
        """
        mine = self.scorer.score(self.generate(deal(self.scorer.suite.used, self.world)), progress)
        return gathered(mine, self.scorer.suite, self.world)

    def metrics(self) -> dict[str, float]:
        """Evaluate; return `evaluate/pass@1` (all tests), and `evaluate/base_pass@1` for an extended benchmark.

        Each has its interval beside it (`bounds`).
        """
        return metrics_of(self.evaluate())

    def _seed(self, task: Task, number: int) -> int:
        return sample_seed(self.seed, 0, f"{STREAM}/{task.id}", number)

    def _seeded(self, seeds: Sequence[Sequence[int]]) -> Sampling:
        s = self.sampling
        return Sampling(s.max_tokens, s.temperature, s.top_p, s.top_k, s.n, seeds, s.stop)


def deal(tasks: Sequence[Task], world: World) -> Sequence[Task]:
    """Return the share of the tasks that is this rank's: every n-th of n ranks."""
    return tasks[world.rank :: world.size]


def gathered(mine: Sequence[Result], suite: Suite, world: World) -> list[Result]:
    """Return the results of all ranks, in the order of the suite's tasks and of each task's samples."""
    place = {task.id: i for i, task in enumerate(suite.tasks)}
    every = [result for part in world.all_gather_object(list(mine)) for result in part]
    return sorted(every, key=lambda result: (place[result.sample.task_id], result.sample.number))


def metrics_of(results: Sequence[Result]) -> dict[str, float]:
    """Summarize an evaluation as metrics of a training run, each with its interval (`bounds`)."""
    row = bounds("evaluate/pass@1", estimate(passed_counts(results, "all"), 1))
    if any(result.plus is not None for result in results):
        row |= bounds("evaluate/base_pass@1", estimate(passed_counts(results, "base"), 1))
    return row


def bounds(name: str, found: Estimate) -> dict[str, float]:
    """Return an estimate as the metrics NAME, NAME_low and NAME_high, the ends of its 95 % interval.

    >>> bounds("evaluate/pass@1", Estimate(0.5, 0.4, 0.6))
    {'evaluate/pass@1': 0.5, 'evaluate/pass@1_low': 0.4, 'evaluate/pass@1_high': 0.6}
    """
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}

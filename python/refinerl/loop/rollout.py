"""Scored groups of rollouts from prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from refinerl.contracts import ALONE, Algorithm, Clock, Generator, Task, World
from refinerl.records import Prompt, Rollout, RolloutGroup, Sampling, sample_seed


@dataclass(frozen=True)
class Roller:
    """Sampling and scoring of y ~ π_θ."""

    generator: Generator
    task: Task
    sampling: Sampling
    """Has no seeds; `n` is the number of samples per prompt."""
    seed: int
    clock: Clock
    entering: Callable[[int], None] = lambda step: None
    """Called with the number of the step before its responses are scored."""

    def rollout(
        self,
        prompts: Sequence[Prompt],
        step: int,
        drawn_before: Sequence[Prompt] = (),
        chosen: Sequence[int] | None = None,
    ) -> list[RolloutGroup]:
        """Make one scored group per prompt, or per prompt whose index is in `chosen`.

        A prompt that occurs again within a step (`drawn_before`) continues its numbering of samples, so that no noise
        is used twice, on whatever rank.
        """
        self.entering(step)
        occurrences = Counter(prompt.id for prompt in drawn_before)
        numbers: list[list[int]] = []
        for prompt in prompts:
            first = occurrences[prompt.id] * self.sampling.n
            numbers.append(list(range(first, first + self.sampling.n)))
            occurrences[prompt.id] += 1
        chosen = range(len(prompts)) if chosen is None else chosen
        prompts, numbers = [prompts[i] for i in chosen], [numbers[i] for i in chosen]
        seeds = [
            [sample_seed(self.seed, step, prompt.id, number) for number in row]
            for prompt, row in zip(prompts, numbers, strict=True)
        ]
        with self.clock("generate", len(prompts) * self.sampling.n * self.sampling.max_tokens):
            written = self.generator.generate(
                [p.token_ids for p in prompts],
                replace(self.sampling, seeds=seeds),
                finished=lambda i, _, completion: self.task.expect(prompts[i], completion),
            )
        with self.clock("score"):
            asked = [prompt for prompt, row in zip(prompts, written, strict=True) for _ in row]
            answers = [completion for row in written for completion in row]
            rewards = iter(self.task.score(asked, answers) if answers else ())
        return [
            RolloutGroup(
                prompt,
                tuple(
                    Rollout(prompt, completion, next(rewards), number)
                    for completion, number in zip(row, numbering, strict=True)
                ),
                position=len(drawn_before) + index,
            )
            for prompt, row, numbering, index in zip(prompts, written, numbers, chosen, strict=True)
        ]


@dataclass(frozen=True)
class Collected:
    """The rollouts of a step on this rank."""

    kept: tuple[RolloutGroup, ...]
    dropped: tuple[RolloutGroup, ...]
    """Groups that gave no signal."""
    resamples: int
    """Rounds of new prompts after the first."""

    @property
    def others(self) -> tuple[RolloutGroup, ...]:
        """The y without a part in the policy gradient: those of dropped groups, and unscored ones of kept groups."""
        unscored = (
            replace(group, rollouts=tuple(r for r in group.rollouts if r.reward is None)) for group in self.kept
        )
        return self.dropped + tuple(group for group in unscored if group.rollouts)

    @property
    def groups(self) -> tuple[RolloutGroup, ...]:
        """All groups that were sampled."""
        return self.kept + self.dropped


def collect(
    roller: Roller,
    algorithm: Algorithm,
    world: World,
    draw: Callable[[int], list[Prompt]],
    *,
    prompts: int,
    max_resamples: int,
    step: int,
) -> Collected:
    """Sample groups; draw new prompts for dropped ones until `prompts` are kept or the limit is reached.

    `draw(n)` gives the next n prompts, fewer at the end of the data. Every rank draws the same ones and samples its
    share of them: together they keep what one rank would have kept, and each keeps as many as any other.
    """
    quota = prompts // world.size
    kept: list[RolloutGroup] = []
    dropped: list[RolloutGroup] = []
    drawn: list[Prompt] = []
    rounds = 0
    roller.generator.wake()
    while True:
        missing = world.all_gather_object(quota - len(kept))
        fresh = draw(sum(missing)) if rounds <= max_resamples else []
        if not fresh:
            break
        mine = [i for i, rank in enumerate(deal(len(fresh), missing)) if rank == world.rank]
        good, bad = algorithm.select(roller.rollout(fresh, step, drawn, mine), world)
        drawn += fresh
        kept += good
        dropped += bad
        rounds += 1
    roller.generator.sleep()
    return Collected(tuple(kept), tuple(dropped), max(rounds - 1, 0))


def deal(count: int, missing: Sequence[int]) -> list[int]:
    """Deal `count` prompts to the ranks in turn, to none more than it misses; return the rank of each."""
    turns = [rank for turn in range(max(missing)) for rank, lacks in enumerate(missing) if turn < lacks]
    return turns[:count]


def revive(
    dropped: Sequence[RolloutGroup], count: int, max_reward: float | None, seed: int, world: World = ALONE
) -> list[RolloutGroup]:
    """Draw at most `count` rollouts from all ranks' dropped groups by seed, as groups without a surrogate.

    Only rollouts that a refinement can improve are drawn: those with a reward below the task's highest.
    """
    mine = [
        (group.position, number, member, world.rank)
        for number, group in enumerate(dropped)
        for member, rollout in enumerate(group.rollouts)
        if rollout.improvable(max_reward)
    ]
    pool = sorted(place for part in world.all_gather_object(mine) for place in part)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {(number, member) for _, number, member, rank in (pool[i] for i in order[:count]) if rank == world.rank}
    revived = []
    for number, group in enumerate(dropped):
        members = tuple(rollout for member, rollout in enumerate(group.rollouts) if (number, member) in chosen)
        if members:
            others = tuple(
                rollout.reward.value
                for member, rollout in enumerate(group.rollouts)
                if rollout.reward is not None and (number, member) not in chosen
            )
            revived.append(
                RolloutGroup(group.prompt, members, surrogate=False, position=group.position, left_out=others)
            )
    return revived

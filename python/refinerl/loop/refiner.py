"""The online refiner: rollouts -> refinements (instruct, reply, make ỹ, score, align, filter)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

import numpy as np

from refinerl.alignment import align, filter_refinements, retokenize
from refinerl.contracts import ALONE, Author, Clock, Task, World
from refinerl.loop.choice import Where, choose, dead
from refinerl.records import (
    Alignment,
    Anchors,
    Completion,
    Refinement,
    Reply,
    Reward,
    Rollout,
    RolloutGroup,
    Sampling,
    sample_seed,
)

Accept = Literal["better", "all", "perfect"]


@dataclass(frozen=True)
class Try:
    """A reply of the refiner's, as a response to x."""

    rollout: Rollout
    """y."""
    refined: Completion
    """ỹ."""
    reward: Reward | None
    alignment: Alignment
    hard_coded: bool
    """It repeats an answer that the refiner was shown."""

    @property
    def truncated(self) -> bool:
        """The refiner was cut off."""
        return self.refined.finish_reason == "length"


@dataclass(frozen=True)
class Refiner:
    """π_ref(· | refine(x, y)), and what of it may teach (Eq. 6's filter)."""

    author: Author
    """Who writes: the frozen reference (the paper), or another model."""
    task: Task
    sampling: Sampling
    """Without seeds; `n` tries for each y; temperature 0 is greedy."""
    encode: Callable[[str], Sequence[int]]
    """The policy's tokenizer, without special tokens."""
    decode: Callable[[Sequence[int]], str]
    """The policy's tokenizer, special tokens left out."""
    eos_token_id: int
    """The policy's EOS: it ends ỹ exactly where the refiner stopped by itself."""
    special_token_ids: frozenset[int]
    """The policy's tokens that are no text, every EOS among them: none stands inside ỹ."""
    context_length: int
    """Tokens of x and ỹ that the policy can read."""
    accept: Accept
    seed: int
    clock: Clock
    world: World = ALONE
    accept_truncated: bool = False
    """Let a ỹ teach that was cut off: a greedy refiner loops to the limit, and a reward may see only its beginning."""
    where: Where = "all"
    """Which y are refined (`choose`)."""
    budget: float = 1.0
    """Share of the rollouts that are refined at most."""

    def refine(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Refine the rollouts that can be improved; nothing that the refiner writes raises."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        improvable = sum(r.improvable(None if self.accept == "all" else self.task.max_reward) for r in rollouts)
        candidates = choose(
            groups,
            where=self.where,
            budget=self.budget,
            max_reward=self.task.max_reward,
            accept_all=self.accept == "all",
            world=self.world,
        )
        with self.clock("refine", len(candidates) * self.sampling.n * self.sampling.max_tokens):
            replies = self._ask(candidates, step)
            tries = self._tries(candidates, replies)
            refinements, counts = self._judge(self._best(tries))
        written = [reply for mine in replies for reply in mine if reply is not None]
        failed = sum(bool(mine) and not any(mine) for mine in replies)
        counts = {
            **counts,
            "tokens": sum(reply.written for reply in written),
            "tokens_read": sum(reply.read for reply in written),
            "truncated": sum(each.truncated for each in tries),
            "hard_coded": sum(each.hard_coded for each in tries),
            "failed": failed,
            "skipped_perfect": sum(r.reward is not None for r in rollouts) - improvable,
            "skipped_by_choice": improvable - len(candidates),
            "skipped_too_long": len(candidates) - len(refinements) - failed,
        }
        return Anchors(tuple(refinements), self._metrics(groups, refinements, counts))

    def _ask(self, candidates: Sequence[Rollout], step: int) -> list[list[Reply | None]]:
        """The refiner's replies to each of these rollouts: as many as there are tries."""
        tries = ["refine", *(f"refine/{number}" for number in range(1, self.sampling.n))]
        seeds = [
            [sample_seed(self.seed, step, f"{name}/{r.prompt.id}", r.sample) for name in tries] for r in candidates
        ]
        return self.author.reply(
            [self.task.refine_prompt(r) for r in candidates],
            replace(self.sampling, seeds=seeds),
            [r.completion.token_ids for r in candidates],
        )

    def _tries(self, candidates: Sequence[Rollout], replies: Sequence[Sequence[Reply | None]]) -> list[Try]:
        """Every reply that the policy could have written, as a response, scored and aligned with its y."""
        made = [
            (r, self._as_response(r, reply))
            for r, mine in zip(candidates, replies, strict=True)
            for reply in mine
            if reply is not None
        ]
        read = [(r, y) for r, y in made if len(r.prompt.token_ids) + len(y.token_ids) <= self.context_length]
        rewards = self._score(read)
        alignments = align([r.completion.token_ids for r, _ in read], [y.token_ids for _, y in read])
        return [
            Try(r, y, reward, alignment, self.task.hard_coded(r, y, reward))
            for (r, y), reward, alignment in zip(read, rewards, alignments, strict=True)
        ]

    def _best(self, tries: Sequence[Try]) -> list[Try]:
        """One try for each y: of those that may teach the one of the highest reward, then the one that copies most."""
        found: dict[tuple[str, int], Try] = {}
        for each in tries:
            rival = found.setdefault(each.rollout.key, each)
            if self._merit(each) > self._merit(rival):
                found[each.rollout.key] = each
        return list(found.values())

    def _merit(self, each: Try) -> tuple[bool, float, float]:
        value = float("-inf") if each.reward is None else each.reward.value
        return self._may_teach(each) and bool(each.refined.token_ids), value, each.alignment.copy_ratio

    def _may_teach(self, each: Try) -> bool:
        return (self.accept_truncated or not each.truncated) and not each.hard_coded

    def _as_response(self, rollout: Rollout, reply: Reply) -> Completion:
        """ỹ: the reply as a response to x, in the policy's tokens, ended as the refiner ended it.

        It keeps tokens of y up to y's first special token. Where the reply spells out a special token, ỹ lacks it.
        """
        text = self.task.refined_response(rollout, reply.text)
        original = tuple(takewhile(lambda token: token not in self.special_token_ids, rollout.completion.token_ids))
        whole = tuple(retokenize(text, original, self.encode, self.decode))
        tokens = tuple(token for token in whole if token not in self.special_token_ids)
        if tokens != whole:
            text = self.decode(tokens)
        if tokens and reply.finish_reason == "stop":
            tokens = (*tokens, self.eos_token_id)
        return Completion(tokens, (), text, reply.finish_reason)

    def _judge(self, best: Sequence[Try]) -> tuple[list[Refinement], Mapping[str, int]]:
        """Filter; the refinements with the counts of what was dropped."""
        open_to_filter = [i for i, each in enumerate(best) if self._may_teach(each)]
        verdict = filter_refinements(
            [_value(best[i].rollout.reward) for i in open_to_filter],
            [_value(best[i].reward) for i in open_to_filter],
            [best[i].rollout.prompt.id for i in open_to_filter],
            [best[i].refined.token_ids for i in open_to_filter],
            accept=self.accept,
            max_reward=self.task.max_reward,
        )
        passed = dict(zip(open_to_filter, zip(verdict.accepted, verdict.weight, strict=True), strict=True))
        refinements = []
        for i, each in enumerate(best):
            accepted, weight = passed.get(i, (False, 0))
            refinements.append(
                Refinement(each.rollout, each.refined, each.reward, each.alignment, bool(accepted), int(weight))
            )
        return refinements, verdict.counts

    def _score(self, made: Sequence[tuple[Rollout, Completion]]) -> list[Reward | None]:
        """R(x, ỹ). A copy has the reward of its y: scored again, a reward model's would move with its batch."""
        changed = [(r, y) for r, y in made if y.text != r.completion.text]
        scored = iter(self.task.score([r.prompt for r, _ in changed], [y for _, y in changed]))
        return [r.reward if y.text == r.completion.text else next(scored) for r, y in made]

    def _metrics(
        self, groups: Sequence[RolloutGroup], refinements: Sequence[Refinement], counts: Mapping[str, int]
    ) -> dict[str, float]:
        """Over all ranks."""
        group_of = {rollout.key: group for group in groups for rollout in group.rollouts}
        taught = [(group_of[r.rollout.key], _value(r.reward)) for r in refinements if r.accepted]
        mine = (
            len(group_of),
            [_value(r.reward) - _value(r.rollout.reward) for r in refinements],
            [r.accepted for r in refinements],
            [r.alignment.copy_ratio for r in refinements],
            dict(counts),
            [group.best is not None and value > group.best for group, value in taught],
            [dead(group, self.task.max_reward) for group, _ in taught],
        )
        sizes, gains, accepted, copies, tallies, beyond, in_dead = zip(*self.world.all_gather_object(mine), strict=True)
        scored = [gain for part in gains for gain in part if not np.isnan(gain)]
        total = max(sum(sizes), 1)
        return {
            "refiner/improved_ratio": sum(gain > 0 for gain in scored) / total,
            "refiner/accepted_fraction": sum(map(sum, accepted)) / total,
            "refiner/beyond_best_sibling": _mean([better for part in beyond for better in part]),
            "refiner/in_dead_groups": _mean([is_dead for part in in_dead for is_dead in part]),
            "refiner/copy_ratio": _mean([ratio for part in copies for ratio in part]),
            "refiner/reward_gain": _mean(scored),
            "refiner/refined": float(sum(map(len, gains))),
            **{f"refiner/{name}": float(sum(t[name] for t in tallies)) for name in counts if name != "accepted"},
        }


def _value(reward: Reward | None) -> float:
    return float("nan") if reward is None else reward.value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

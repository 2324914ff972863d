"""The online refiner: rollouts -> refinements (instruct, reply, make ỹ, score, align, filter)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

import numpy as np

from refinerl.alignment import align, filter_refinements, retokenize
from refinerl.contracts import ALONE, Clock, Generator, Task, World
from refinerl.loop.choice import Where, choose, dead
from refinerl.records import (
    Anchors,
    Completion,
    Message,
    Refinement,
    Reward,
    Rollout,
    RolloutGroup,
    Sampling,
    sample_seed,
)

Accept = Literal["better", "all", "perfect"]


@dataclass(frozen=True)
class Written:
    """A reply of the refiner's, as a response to x, not yet scored."""

    rollout: Rollout
    """y."""
    refined: Completion
    """ỹ."""
    tokens: int
    """Tokens that the refiner wrote."""


@dataclass(frozen=True)
class Refiner:
    """π_ref(· | refine(x, y)), and what of it may teach (Eq. 6's filter)."""

    generator: Generator
    """The frozen reference."""
    task: Task
    sampling: Sampling
    """Without seeds, n = 1; temperature 0 is greedy."""
    encode_chat: Callable[[Sequence[Message]], Sequence[int]]
    """The refiner's chat template and tokenizer."""
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
        with self.clock("refine", len(candidates) * self.sampling.max_tokens):
            written = self._write(candidates, step)
            readable = [
                w for w in written if len(w.rollout.prompt.token_ids) + len(w.refined.token_ids) <= self.context_length
            ]
            refinements, counts = self._judge(readable)
        counts = {
            **counts,
            "tokens": sum(w.tokens for w in written),
            "skipped_perfect": sum(r.reward is not None for r in rollouts) - improvable,
            "skipped_by_choice": improvable - len(candidates),
            "skipped_too_long": len(candidates) - len(readable),
        }
        return Anchors(tuple(refinements), self._metrics(groups, refinements, counts))

    def _write(self, candidates: Sequence[Rollout], step: int) -> list[Written]:
        """Ask the refiner about those rollouts whose instruction fits its context."""
        instructions = [(r, tuple(self.encode_chat(self.task.refine_prompt(r)))) for r in candidates]
        room = self.generator.context_length - self.sampling.max_tokens
        asked = [(r, instruction) for r, instruction in instructions if len(instruction) <= room]
        seeds = [[sample_seed(self.seed, step, f"refine/{r.prompt.id}", r.sample)] for r, _ in asked]
        self.generator.wake()
        replies = self.generator.generate(
            [instruction for _, instruction in asked],
            replace(self.sampling, seeds=seeds),
            adapter=False,
            drafts=[r.completion.token_ids for r, _ in asked],
        )
        self.generator.sleep()
        return [
            Written(r, self._as_response(r, reply), len(reply.token_ids))
            for (r, _), (reply,) in zip(asked, replies, strict=True)
        ]

    def _as_response(self, rollout: Rollout, reply: Completion) -> Completion:
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

    def _judge(self, written: Sequence[Written]) -> tuple[list[Refinement], Mapping[str, int]]:
        """Score, align and filter; the refinements with the counts of what was dropped."""
        rewards = self._score(written)
        alignments = align([w.rollout.completion.token_ids for w in written], [w.refined.token_ids for w in written])
        cut_off = [w.refined.finish_reason == "length" for w in written]
        may_teach = [i for i, cut in enumerate(cut_off) if self.accept_truncated or not cut]
        verdict = filter_refinements(
            [_value(written[i].rollout.reward) for i in may_teach],
            [_value(rewards[i]) for i in may_teach],
            [written[i].rollout.prompt.id for i in may_teach],
            [written[i].refined.token_ids for i in may_teach],
            accept=self.accept,
            max_reward=self.task.max_reward,
        )
        passed = dict(zip(may_teach, zip(verdict.accepted, verdict.weight, strict=True), strict=True))
        refinements = []
        for i, w in enumerate(written):
            accepted, weight = passed.get(i, (False, 0))
            refinements.append(Refinement(w.rollout, w.refined, rewards[i], alignments[i], bool(accepted), int(weight)))
        return refinements, {**verdict.counts, "truncated": sum(cut_off)}

    def _score(self, written: Sequence[Written]) -> list[Reward | None]:
        """R(x, ỹ). A copy has the reward of its y: scored again, a reward model's would move with its batch."""
        changed = [w for w in written if w.refined.text != w.rollout.completion.text]
        scored = iter(self.task.score([w.rollout.prompt for w in changed], [w.refined for w in changed]))
        return [w.rollout.reward if w.refined.text == w.rollout.completion.text else next(scored) for w in written]

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

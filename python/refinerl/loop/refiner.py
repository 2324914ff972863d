"""The online refiner: rollouts -> refinements (instruct, reply, make ỹ, score, align, filter)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from refinerl.alignment import align, filter_refinements, retokenize
from refinerl.contracts import ALONE, Clock, Generator, Task, World
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
    context_length: int
    """Tokens of x and ỹ that the policy can read."""
    accept: Accept
    seed: int
    clock: Clock
    world: World = ALONE

    def refine(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Refines every rollout that can be improved; never raises for what the refiner writes."""
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        candidates = [r for r in rollouts if self._improvable(r)]
        with self.clock("refine", len(candidates) * self.sampling.max_tokens):
            instructions = [tuple(self.encode_chat(self.task.refine_prompt(r))) for r in candidates]
            fits = [len(i) + self.sampling.max_tokens <= self.generator.context_length for i in instructions]
            asked = [r for r, fit in zip(candidates, fits, strict=True) if fit]
            replies = self._generate([i for i, fit in zip(instructions, fits, strict=True) if fit], asked, step)
            written = [self._as_response(r, reply) for r, reply in zip(asked, replies, strict=True)]
            readable = [
                len(r.prompt.token_ids) + len(y.token_ids) <= self.context_length
                for r, y in zip(asked, written, strict=True)
            ]
            made = [pair for pair, fit in zip(zip(asked, written, strict=True), readable, strict=True) if fit]
            refinements, counts = self._judge(made)
        counts = {
            **counts,
            "tokens": sum(len(reply.token_ids) for reply in replies),
            "skipped_perfect": sum(r.reward is not None for r in rollouts) - len(candidates),
            "skipped_too_long": len(candidates) - len(made),
        }
        return Anchors(tuple(refinements), self._metrics(rollouts, refinements, counts))

    def _improvable(self, rollout: Rollout) -> bool:
        """A y at the highest reward can never pass the filter, so leaving it out is exact."""
        if rollout.reward is None:
            return False
        return self.accept == "all" or self.task.max_reward is None or rollout.reward.value < self.task.max_reward

    def _generate(
        self, instructions: Sequence[tuple[int, ...]], asked: Sequence[Rollout], step: int
    ) -> list[Completion]:
        seeds = [[sample_seed(self.seed, step, f"refine/{r.prompt.id}", r.sample)] for r in asked]
        drafts = [r.completion.token_ids for r in asked]
        self.generator.wake()
        replies = self.generator.generate(
            instructions, replace(self.sampling, seeds=seeds), adapter=False, drafts=drafts
        )
        self.generator.sleep()
        return [reply for (reply,) in replies]

    def _as_response(self, rollout: Rollout, reply: Completion) -> Completion:
        """ỹ: the reply as a response to x, in the policy's tokens, ended as the refiner ended it."""
        text = self.task.refined_response(rollout, reply.text)
        original = rollout.completion.token_ids
        if original and original[-1] == self.eos_token_id:
            original = original[:-1]
        tokens = tuple(retokenize(text, original, self.encode, self.decode))
        if tokens and reply.finish_reason == "stop":
            tokens = (*tokens, self.eos_token_id)
        return Completion(tokens, (), text, reply.finish_reason)

    def _judge(self, made: Sequence[tuple[Rollout, Completion]]) -> tuple[list[Refinement], Mapping[str, int]]:
        rewards = self.task.score([r.prompt for r, _ in made], [refined for _, refined in made])
        alignments = align([r.completion.token_ids for r, _ in made], [refined.token_ids for _, refined in made])
        verdict = filter_refinements(
            [_value(r.reward) for r, _ in made],
            [_value(reward) for reward in rewards],
            [r.prompt.id for r, _ in made],
            [refined.token_ids for _, refined in made],
            accept=self.accept,
            max_reward=self.task.max_reward,
        )
        refinements = [
            Refinement(rollout, refined, rewards[i], alignments[i], bool(verdict.accepted[i]), int(verdict.weight[i]))
            for i, (rollout, refined) in enumerate(made)
        ]
        return refinements, verdict.counts

    def _metrics(
        self, rollouts: Sequence[Rollout], refinements: Sequence[Refinement], counts: Mapping[str, int]
    ) -> dict[str, float]:
        """Over all ranks."""
        mine = (
            len(rollouts),
            [_value(r.reward) - _value(r.rollout.reward) for r in refinements],
            [r.accepted for r in refinements],
            [r.alignment.copy_ratio for r in refinements],
            dict(counts),
        )
        sizes, gains, accepted, copies, tallies = zip(*self.world.all_gather_object(mine), strict=True)
        scored = [gain for part in gains for gain in part if not np.isnan(gain)]
        total = max(sum(sizes), 1)
        return {
            "refiner/improved_ratio": sum(gain > 0 for gain in scored) / total,
            "refiner/accepted_fraction": sum(map(sum, accepted)) / total,
            "refiner/copy_ratio": _mean([ratio for part in copies for ratio in part]),
            "refiner/reward_gain": _mean(scored),
            "refiner/refined": float(sum(map(len, gains))),
            **{f"refiner/{name}": float(sum(t[name] for t in tallies)) for name in counts if name != "accepted"},
        }


def _value(reward: Reward | None) -> float:
    return float("nan") if reward is None else reward.value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

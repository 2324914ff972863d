"""The online refiner: it requests replies, turns each into a response ỹ, scores it, aligns it with y and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, takewhile
from typing import Literal

import numpy as np

from refinerl.alignment import align, filter_refinements, retokenize
from refinerl.contracts import ALONE, Author, Clock, Task, World
from refinerl.loop.choice import Where, choose, dead
from refinerl.loop.drafts import Drafts
from refinerl.loop.requests import distinct
from refinerl.records import (
    Alignment,
    Anchors,
    Completion,
    Decoding,
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
    """A reply of the refiner, as a response to x."""

    rollout: Rollout
    """y."""
    refined: Completion
    """ỹ."""
    reward: Reward | None
    alignment: Alignment
    hard_coded: bool
    """True if ỹ repeats an answer from the feedback."""

    @property
    def truncated(self) -> bool:
        """True if the reply was cut off at the token limit."""
        return self.refined.finish_reason == "length"


@dataclass(frozen=True)
class Refiner:
    """π_ref(· | refine(x, y)) with the filter of Eq. 6."""

    author: Author
    """The model that writes the replies: the frozen reference (the paper) or another model."""
    task: Task
    sampling: Sampling
    """Sampling parameters, without seeds; `n` is the number of tries per y; temperature 0 is greedy."""
    answering: Sampling
    """Sampling parameters of an answer to x alone, without seeds: those of y."""
    encode: Callable[[str], Sequence[int]]
    """Encodes with the policy's tokenizer, without special tokens."""
    decode: Callable[[Sequence[int]], str]
    """Decodes with the policy's tokenizer, without special tokens."""
    eos_token_id: int
    """The policy's EOS, appended to ỹ if and only if the refiner ended its reply itself."""
    special_token_ids: frozenset[int]
    """The policy's special tokens, including every EOS; ỹ contains none of them before its end."""
    context_length: int
    """The policy's largest number of tokens for x and ỹ together."""
    accept: Accept
    seed: int
    clock: Clock
    world: World = ALONE
    expect: Callable[[int], None] = lambda _: None
    """Takes the maximum number of tokens to generate in place of the clock's, once it is known what is sent."""
    accept_truncated: bool = False
    """Accept a ỹ that was cut off: a greedy refiner may loop up to the limit, and a reward may read only the start."""
    where: Where = "all"
    """The choice of y to refine: see `choose`."""
    budget: float = 1.0
    """Largest share of the rollouts to refine."""

    def refine(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Refine the rollouts that can be improved. No reply, whatever it contains, raises an exception."""
        return self.improve(groups, partial(self._ask, step=step), self.sampling.n * self.sampling.max_tokens)

    def improve(
        self, groups: Sequence[RolloutGroup], write: Callable[[Sequence[Rollout]], Drafts], tokens: int = 0
    ) -> Anchors:
        """Choose the rollouts to improve, score what `write` returns for them, align and filter.

        Args:
            groups: this rank's groups.
            write: makes responses that may replace those of the chosen rollouts.
            tokens: the most tokens that it generates for one of them.
        """
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
        with self.clock("refine", len(candidates) * tokens):
            drafts = write(candidates)
            tries = self._tries(drafts)
            refinements, counts = self._judge(self._best(tries))
        counts = {
            **counts,
            "tokens": drafts.written,
            "tokens_read": drafts.read,
            "truncated": sum(each.truncated for each in tries),
            "hard_coded": sum(each.hard_coded for each in tries),
            "failed": drafts.failed,
            "skipped_perfect": sum(r.reward is not None for r in rollouts) - improvable,
            "skipped_by_choice": improvable - len(candidates),
            "skipped_too_long": len(candidates) - len(refinements) - drafts.failed,
        }
        metrics = self._metrics(groups, refinements, counts)
        return Anchors(tuple(refinements), metrics | self._work(drafts.decoded))

    def _ask(self, candidates: Sequence[Rollout], step: int) -> Drafts:
        """Request all tries for each rollout from the refiner, and turn each reply into a response."""
        tries = ["refine", *(f"refine/{number}" for number in range(1, self.sampling.n))]
        seeds = [
            [sample_seed(self.seed, step, f"{name}/{r.prompt.id}", r.sample) for name in tries] for r in candidates
        ]
        conversations = [self.task.refine_prompt(r) for r in candidates]
        asked = distinct(conversations, greedy=self.sampling.temperature == 0)
        self.expect(len(asked.sent) * self.sampling.n * self.sampling.max_tokens)
        users, made = asked.users, dict[tuple[int, int], Completion]()

        def arrived(number: int, attempt: int, reply: Reply) -> None:
            for i in users[number]:
                made[i, attempt] = response = self._as_response(candidates[i], reply)
                if not _is_copy(candidates[i], response):
                    self.task.expect(candidates[i].prompt, response)

        before = self.author.decoded
        found = self.author.reply(
            [conversations[i] for i in asked.sent],
            replace(self.sampling, seeds=[seeds[i] for i in asked.sent], stop=getattr(self.task, "refine_stop", ())),
            [candidates[i].completion.token_ids for i in asked.sent],
            arrived,
        )
        after = self.author.decoded
        replies = [
            (i, attempt, reply)
            for i, number in enumerate(asked.number)
            for attempt, reply in enumerate(found[number])
            if reply is not None
        ]
        return Drafts(
            [
                (candidates[i], made.get((i, attempt)) or self._as_response(candidates[i], reply))
                for i, attempt, reply in replies
            ],
            written=sum(reply.written for *_, reply in replies),
            read=sum(reply.read for *_, reply in replies),
            decoded=None if before is None or after is None else after - before,
            failed=sum(bool(found[number]) and not any(found[number]) for number in asked.number),
            shown=True,
        )

    def _tries(self, drafts: Drafts) -> list[Try]:
        """Score each response that fits the policy's context, and align it with its y."""
        room = [len(r.prompt.token_ids) + len(y.token_ids) <= self.context_length for r, y in drafts.responses]
        read = list(compress(drafts.responses, room))
        rewards = self._score(read) if drafts.rewards is None else list(compress(drafts.rewards, room))
        alignments = align([r.completion.token_ids for r, _ in read], [y.token_ids for _, y in read])
        return [
            Try(r, y, reward, alignment, drafts.shown and self.task.hard_coded(r, y, reward))
            for (r, y), reward, alignment in zip(read, rewards, alignments, strict=True)
        ]

    def _best(self, tries: Sequence[Try]) -> list[Try]:
        """Choose one try per y: acceptable ones first, then by the highest reward, then by the largest copy ratio."""
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
        """Return ỹ: the reply as a response to x in the policy's tokens, with EOS if the refiner ended it itself.

        Text that y and the reply share keeps y's tokens, up to y's first special token. Special tokens that the reply
        spells out are left out of ỹ. Its text is what its tokens say: a tokenizer that normalises changes the reply's.
        """
        text = self.task.refined_response(rollout, reply.text)
        original = tuple(takewhile(lambda token: token not in self.special_token_ids, rollout.completion.token_ids))
        whole = retokenize(text, original, self.encode, self.decode)
        tokens = tuple(token for token in whole if token not in self.special_token_ids)
        text = self.decode(tokens)
        if tokens and reply.finish_reason == "stop":
            tokens = (*tokens, self.eos_token_id)
        return Completion(tokens, (), text, reply.finish_reason)

    def _judge(self, best: Sequence[Try]) -> tuple[list[Refinement], Mapping[str, int]]:
        """Filter the tries; return the refinements, and counts of those that were dropped."""
        open_to_filter = [i for i, each in enumerate(best) if self._may_teach(each)]
        most = self.task.max_reward
        verdict = filter_refinements(
            [_height(best[i].rollout.reward, most) for i in open_to_filter],
            [_height(best[i].reward, most) for i in open_to_filter],
            [best[i].rollout.prompt.id for i in open_to_filter],
            [best[i].refined.token_ids for i in open_to_filter],
            accept=self.accept,
            max_reward=most,
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
        """Score each ỹ. A copy of y gets y's reward, because a reward model's score varies with the batch."""
        changed = [(r, y) for r, y in made if not _is_copy(r, y)]
        scored = iter(self.task.score([r.prompt for r, _ in changed], [y for _, y in changed]))
        return [r.reward if _is_copy(r, y) else next(scored) for r, y in made]

    def _metrics(
        self, groups: Sequence[RolloutGroup], refinements: Sequence[Refinement], counts: Mapping[str, int]
    ) -> dict[str, float]:
        """Compute the metrics over all ranks."""
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

    def _work(self, decoded: Decoding | None) -> dict[str, float]:
        """Compute the metrics of the engine's work over all ranks, which decode at the same time; none if unknown."""
        ranks = [counts for counts in self.world.all_gather_object(decoded) if counts is not None]
        if not ranks:
            return {}
        total = sum(ranks, Decoding())
        passes = max(counts.passes for counts in ranks)
        return {
            "refiner/tokens_decoded": float(total.tokens - total.accepted),
            "refiner/passes": float(passes) if passes or not total.tokens else float("nan"),
            "refiner/draft_accepted": total.accepted / total.drafted if total.drafted else float("nan"),
        }


def _is_copy(rollout: Rollout, refined: Completion) -> bool:
    return refined.text == rollout.completion.text


def _height(reward: Reward | None, max_reward: float | None) -> float:
    """Return a reward for the filter, which has one highest value: `max_reward` for the highest of any prompt."""
    if reward is not None and max_reward is not None and reward.is_highest(max_reward):
        return max(max_reward, reward.value)
    return _value(reward)


def _value(reward: Reward | None) -> float:
    return float("nan") if reward is None else reward.value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

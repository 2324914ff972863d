"""The constraint `fresh`, a control of `dynamic`: cross-entropy on new answers of the reference, which do not see y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from refinerl.constraints.dynamic import Dynamic
from refinerl.contracts.options import Count, Positive
from refinerl.loop.drafts import Drafts
from refinerl.records import Anchors, Completion, Rollout, RolloutGroup, sample_seed

if TYPE_CHECKING:
    from refinerl.loop.author import ModelAuthor


class Fresh(Dynamic):
    """C(θ) = E[ 1{R(x, ỹ) > R(x, y)} · Σ_t −log π_θ(ỹ_t | x, ỹ_<t) ], ỹ = the best of new answers y′ ~ π_ref(· | x).

    They are sampled as y is, with generation.temperature, max_tokens and stop. Their number follows from the tokens
    that a refinement of y would take, which is a copy of y with few changes: about |y|, for each of refiner.samples
    tries. The first answer is always written; another one follows if at y's length it would end nearer to this budget
    than the answers before it did.
    """

    class Options(Dynamic.Options):
        """Fresh's options."""

        budget: Positive = 1.0
        """Tokens to write for each y, as a multiple of its own length and of refiner.samples."""
        tries: Count = 8
        """Maximum number of answers for each y."""

    measures_refiner = False

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Sample, score, filter, align."""
        return self.refiner.improve(groups, partial(self._write, step=step), self.refiner.answering.max_tokens)

    def _write(self, chosen: Sequence[Rollout], step: int) -> Drafts:
        """Sample answers to the prompts of the chosen rollouts, in rounds of one for each whose budget is not used."""
        spent = [0] * len(chosen)
        made: list[tuple[Rollout, Completion]] = []
        author = cast("ModelAuthor", self.refiner.author)  # of the reference: config/checks.py
        before = author.decoded
        author.generator.wake()
        for number in range(self.options.tries):
            due = [i for i, rollout in enumerate(chosen) if not number or self._affords(rollout, spent[i])]
            # Ranks that share an engine ask it equally often.
            if not any(self.refiner.world.all_gather_object(bool(due))):
                break
            seeds = [[self._seed(chosen[i], step, number)] for i in due]
            answers = author.generator.generate(
                [chosen[i].prompt.token_ids for i in due],
                replace(self.refiner.answering, n=1, seeds=seeds),
                adapter=author.adapter,
            )
            for i, (answer,) in zip(due, answers, strict=True):
                spent[i] += len(answer.token_ids)
                made.append((chosen[i], answer))
        author.generator.sleep()
        return Drafts(
            made,
            written=sum(spent),
            read=sum(len(rollout.prompt.token_ids) for rollout, _ in made),
            decoded=author.decoded - before,
        )

    def _affords(self, rollout: Rollout, spent: int) -> bool:
        length = len(rollout.completion.token_ids)
        budget: float = self.options.budget * self.refiner.sampling.n * length
        return spent + length / 2 <= budget

    def _seed(self, rollout: Rollout, step: int, number: int) -> int:
        """Return the seed of an answer, counted from 0; it differs from that of each y."""
        return sample_seed(self.refiner.seed, step, f"fresh/{number}/{rollout.prompt.id}", rollout.sample)

"""Details of a step that the run's folder keeps for people: advantages, and logprobs of a sample of refinements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from refinerl.contracts import World
from refinerl.contracts.shapes import check_advantages
from refinerl.loop.batch import collate_refinements
from refinerl.loop.update import Updater
from refinerl.records import Anchors, Batch, Refinement, RolloutGroup, sample_seed

Key = tuple[str, int]
"""Prompt id and sample: `Rollout.key`."""


@dataclass(frozen=True)
class Details:
    """Details of this rank's rollouts."""

    advantages: Mapping[Key, float] = field(default_factory=dict)
    """Mean advantage of a response's tokens in the update; rollouts that have no part in the surrogate are absent."""
    logprobs: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)
    """Logprob of each token of the sampled accepted ỹ, by the policy that sampled y; −logprob is its cross-entropy."""


def details(
    updater: Updater, batch: Batch, groups: Sequence[RolloutGroup], anchors: Anchors, *, count: int, step: int
) -> Details:
    """Collect the details of a step before its update. All ranks call it together.

    Args:
        updater: with the policy that sampled the step's y.
        batch: the rows of `groups`, in their order, then those of the accepted ỹ.
        groups: this rank's, as they were collated.
        anchors: their refinements, or the probes in their place.
        count: size of the sample of accepted refinements, over all ranks.
        step: of the run.

    Raises:
        UserError: the algorithm returned something other than a batch with advantages.
    """
    check_advantages(batch, updater.algorithm)
    made = anchors.refinements if anchors.probes is None else anchors.probes
    sampled = _sample(made, count, updater.seed, step, updater.world) if count else []
    found: dict[Key, tuple[float, ...]] = {}
    if count:
        rows = collate_refinements(sampled)
        logprobs = updater.logprobs(rows)
        for refinement, values, mask in zip(sampled, logprobs, rows.mask, strict=True):
            found[refinement.rollout.key] = tuple(values[mask].tolist())
    return Details(_advantages(batch, groups), found)


def _sample(made: Sequence[Refinement], count: int, seed: int, step: int, world: World) -> list[Refinement]:
    """Draw accepted refinements, the same ones on any number of ranks, and return those of this rank."""
    mine = {
        (sample_seed(seed, step, f"details/{r.rollout.prompt.id}", r.rollout.sample), r.rollout.key): r
        for r in made
        if r.accepted and r.weight
    }
    drawn = sorted(key for part in world.all_gather_object(list(mine)) for key in part)[:count]
    return [mine[key] for key in drawn if key in mine]


def _advantages(batch: Batch, groups: Sequence[RolloutGroup]) -> dict[Key, float]:
    """Return the mean advantage of each y with a part in the surrogate and at least one token."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    mask = batch.mask[: len(rollouts)] & batch.surrogate[: len(rollouts), None]
    tokens = mask.sum(-1)
    means = torch.where(mask, batch.advantages[: len(rollouts)].double(), 0.0).sum(-1) / tokens.clamp(min=1)
    every = zip(rollouts, tokens.tolist(), means.tolist(), strict=True)
    return {rollout.key: mean for rollout, count, mean in every if count}


def pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[str, ...]:
    """Split the text of some tokens by token. A token that ends within a character has an empty piece.

    The piece of the token that completes the character holds it, so that the pieces add up to the text.

    >>> pieces((72, 105, 0xC3, 0xA9), lambda ids: bytes(ids).decode("utf-8", "replace"))
    ('H', 'i', '', 'é')
    """
    found: list[str] = []
    start = shown = 0  # the tokens from `start` to `shown` give the context in which the next ones are decoded
    for end in range(1, len(ids) + 1):
        before, now = decode(ids[start:shown]), decode(ids[start:end])
        if len(now) > len(before) and not now.endswith("\ufffd"):
            found.append(now[len(before) :])
            start, shown = shown, end
        else:
            found.append("")
    rest = decode(ids[start:])[len(decode(ids[start:shown])) :]
    if rest:
        found[-1] += rest
    return tuple(found)

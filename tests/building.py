"""Records for tests, from numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from refinerl.alignment import align
from refinerl.records import Completion, Measured, Prompt, Refinement, Reward, Rollout, RolloutGroup, Rows


def prompt(name: str = "p", tokens: Sequence[int] = (5, 6, 7)) -> Prompt:
    return Prompt(name, f"question {name}", (), tuple(tokens), None)


def completion(tokens: Sequence[int], finish: str = "stop") -> Completion:
    return Completion(tuple(tokens), (), " ".join(map(str, tokens)), finish)


def reward(value: float | None) -> Reward | None:
    return None if value is None else Reward(value, "scored")


def group(name: str, *members: tuple[Sequence[int], float | None], surrogate: bool = True) -> RolloutGroup:
    """A group of (tokens, reward) rollouts."""
    question = prompt(name)
    rollouts = [Rollout(question, completion(t), reward(v), i) for i, (t, v) in enumerate(members)]
    return RolloutGroup(question, tuple(rollouts), surrogate, position=ord(name[0]))


def refinement(
    rollout: Rollout, tokens: Sequence[int], value: float | None, *, accepted: bool = True, weight: int = 1
) -> Refinement:
    (alignment,) = align([rollout.completion.token_ids], [tuple(tokens)])
    return Refinement(rollout, completion(tokens), reward(value), alignment, accepted, weight if accepted else 0)


def measured(rows: Rows, **tensors: Tensor) -> Measured:
    """The rows with these tensors as if they had been measured; of the others, what a run that lacks them has."""
    shape = rows.mask.shape
    unknown = {
        name: torch.full(shape, math.nan) for name in ("old_logprobs", "old_entropies", "reference_logprobs", "values")
    }
    unknown["fresh"] = torch.zeros(len(rows), dtype=torch.bool)
    return Measured(**rows.tensors(), **{**unknown, "correction": torch.ones(shape), **tensors})

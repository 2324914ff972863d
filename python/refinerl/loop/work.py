"""The share of an update's work that is due to the constraint, counted in tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from refinerl.contracts import Constraint, World
from refinerl.records import Measured

WITH_GRADIENT = 3
"""Work of a token with gradient, as a multiple of its forward pass: the backward pass has about twice the products."""


def constraint_share(batch: Measured, parts: Sequence[Constraint], *, epochs: int, critic: bool, world: World) -> float:
    """Estimate the share of the update's work that would not be done without the constraints.

    Passes that only metrics need are left out. Micro-batches are taken as equally efficient, and what rows share is not
    considered.

    Args:
        batch: the measured rows.
        parts: the constraints.
        epochs: number of passes over the batch with gradient.
        critic: True if a critic is measured and trained too.
        world: the ranks.
    """
    tokens = batch.attention_mask.sum(-1)
    y = int(tokens[batch.surrogate].sum())
    measured = int(tokens[batch.surrogate & ~batch.fresh].sum())
    refined = tokens * batch.is_constraint
    added = 0
    for part in parts:
        rows = part.rows(batch)
        if part.apply == "reward" or not part.beta:
            added += int(tokens[rows & (batch.is_constraint | batch.fresh)].sum())
        else:
            added += WITH_GRADIENT * epochs * int(refined[rows].sum())
    if any(part.needs_reference for part in parts):
        added += y
    own = measured + WITH_GRADIENT * epochs * y
    own += (1 + WITH_GRADIENT * epochs) * y if critic else 0
    total, constraint = world.all_reduce(torch.tensor([own + added, added], dtype=torch.float64)).tolist()
    return constraint / total if total else 0.0

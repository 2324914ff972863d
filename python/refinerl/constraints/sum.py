"""A sum of constraints β_1·C_1(θ) + β_2·C_2(θ) + …, each with its own β, place and mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from refinerl.constraints.base import Constraint
from refinerl.records import Anchors, RolloutGroup

if TYPE_CHECKING:
    from refinerl.loop.refiner import Refiner


class Sum:
    """The recipe's `constraints`, at most one of which makes refinements.

    Args:
        constraints: (name, constraint) pairs; a name that occurs again is numbered: `static`, `static-2`.
    """

    def __init__(self, constraints: Sequence[tuple[str, Constraint]]) -> None:
        self.parts = tuple(constraint for _, constraint in constraints)
        seen: Counter[str] = Counter()
        for name, constraint in constraints:
            seen[name] += 1
            constraint.label = name if seen[name] == 1 else f"{name}-{seen[name]}"

    def connect(self, refiner: Refiner) -> None:
        """Give the refiner to each."""
        for part in self.parts:
            part.connect(refiner)

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Make the targets of all of them.

        Raises:
            ValueError: two of them made refinements.
        """
        made = [part.anchor(groups, step) for part in self.parts]
        if sum(bool(anchors.refinements) for anchors in made) > 1:
            raise ValueError("at most one of the constraints may make refinements")
        metrics = {name: value for anchors in made for name, value in anchors.metrics.items()}
        return Anchors(tuple(r for anchors in made for r in anchors.refinements), metrics)

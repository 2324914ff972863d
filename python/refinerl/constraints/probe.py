"""The probe of the refiner (`refiner.probe`): it refines as for `dynamic`, is measured, and teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refinerl.contracts import Constraint, Constraints
from refinerl.records import Anchors, RolloutGroup

if TYPE_CHECKING:
    from refinerl.loop.refiner import Refiner

PREFIX = "refiner/"


@dataclass(frozen=True)
class Probed:
    """The constraints of a run, with a refiner beside them whose refinements are only measured."""

    constraints: Constraints
    refiner: Refiner
    every: int
    """Steps between probes; the first step has one."""
    name: str = "constraint"
    """Begins the names of those metrics of the constraints that are also the refiner's: `peer/improved_ratio`."""

    @property
    def parts(self) -> Sequence[Constraint]:
        """The terms of the constraints."""
        return self.constraints.parts

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Make the constraints' targets and, if a probe is due, refinements that are no targets."""
        anchors = self.constraints.anchor(groups, step)
        anchors = replace(anchors, metrics={self._renamed(name): value for name, value in anchors.metrics.items()})
        if (step - 1) % self.every:
            return anchors
        probe = self.refiner.refine(groups, step)
        metrics: Mapping[str, float] = {**anchors.metrics, **probe.metrics}
        return replace(anchors, metrics=metrics, probes=probe.refinements)

    def _renamed(self, name: str) -> str:
        return f"{self.name}/{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name

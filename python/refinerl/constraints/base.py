"""Base class of constraints. A constraint of your own needs one method, `cost`: see docs/extending.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from refinerl.contracts.options import ConstraintOptions
from refinerl.contracts.shapes import for_tokens
from refinerl.objective import Reduction
from refinerl.records import Anchors, Batch, Measured, Outputs, RolloutGroup

if TYPE_CHECKING:
    from torch import Tensor

    from refinerl.loop.refiner import Refiner


class Constraint(ABC):
    """C(θ) in max J(θ) − β·C(θ). A subclass has `cost`, on the tokens of y unless it has other `rows`.

    Args:
        options: an instance of the class's `Options`; or else
        given: its values by name, such as `beta=1e-3`.
    """

    class Options(ConstraintOptions):
        """The options of a recipe; a subclass adds its own."""

    needs_reference: ClassVar[bool] = False
    """True if `cost` reads `Measured.reference_logprobs`."""
    needs_refiner: ClassVar[bool] = False
    """True if `anchor` asks the refiner's model, which the run then has."""
    makes_refinements: ClassVar[bool] = False
    """True if `anchor` makes refinements without asking the refiner's model."""
    measures_refiner: ClassVar[bool] = False
    """True if the metrics of `anchor` are those of the refiner, so that `refiner.probe` would measure them twice."""

    def __init__(self, options: ConstraintOptions | None = None, /, **given: Any) -> None:
        self.options: Any = self.Options(**given) if options is None else options
        self.label = ""
        """Its name among several constraints; empty if it is the only one."""

    def connect(self, refiner: Refiner) -> None:
        """Receive the run's refiner, which `anchor` may ask."""
        self.refiner = refiner

    @property
    def beta(self) -> float:
        """The constraint's weight."""
        beta: float = self.options.beta
        return beta

    @property
    def apply(self) -> Literal["loss", "reward"]:
        """The place where it acts: in the loss, with gradient, or detached in y's rewards."""
        apply: Literal["loss", "reward"] = self.options.apply
        return apply

    @property
    def reduction(self) -> Reduction:
        """The number by which the summed cost is divided in the loss."""
        reduction: Reduction = self.options.reduction
        return reduction

    @property
    def parts(self) -> tuple[Constraint, ...]:
        """The terms of this constraint: itself."""
        return (self,)

    def metric(self, name: str) -> str:
        """Return a metric's name: `constraint/cost`, or `constraint/LABEL/cost` among several."""
        return f"constraint/{self.label}/{name}" if self.label else f"constraint/{name}"

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Make the constraint's targets, without gradient. Here there are none to make."""
        return Anchors()

    def rows(self, batch: Measured) -> Tensor:
        """Return the rows whose tokens carry the cost, (R,) bool: the y with a reward."""
        return batch.surrogate

    @abstractmethod
    def cost(self, outputs: Outputs, batch: Measured) -> Tensor:
        """Return nats for each target token of `rows`, (R, T); other values are ignored."""

    def loss(self, outputs: Outputs, batch: Batch, weights: Tensor) -> Tensor:
        """Return Σ weights·cost, differentiable; `weights` (R,) float64.

        Raises:
            UserError: `cost` has another shape.
            TypeError: `rows` are refinements, whose logprobs have no gradient (`Outputs`).
        """
        if bool((batch.is_constraint & (weights != 0)).any()):
            name = type(self).__name__
            raise TypeError(f"{name}.rows holds refinements: {name}.loss must then be made of outputs.weighted_nll")
        cost = for_tokens(self.cost(outputs, batch), batch, self, "cost")
        return (cost * batch.mask * weights.unsqueeze(-1)).sum()

    def carry(self, cost: Tensor, batch: Measured, anchors: Anchors) -> Tensor:
        """Return the costs at y's positions, (R, T), for `apply: reward`. Here they are there already."""
        return cost

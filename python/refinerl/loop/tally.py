"""Sums over micro-batches, minibatches and ranks, from which the metrics of an update are computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from refinerl.contracts import World
from refinerl.records import Update

_TOKENS = " tokens"


@dataclass
class Tally:
    """Sums over a minibatch, or values of an update's optimizer steps, of which `finish` takes the means."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    largest: float = float("-inf")
    costs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """C(θ) by metric name."""
    ce: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Summed cross-entropy of the refinements by metric name, and their token count by that name with `_TOKENS`."""
    steps: int = 0
    skipped: list[str] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        """Add a micro-batch's contribution to a metric."""
        self.values[name].append(value)

    def add_cost(self, metric: Callable[[str], str], *, cost: float, ce: float, ce_tokens: float) -> None:
        """Add a constraint's cost for a micro-batch; `metric` returns the full name of each of its metrics."""
        self.costs[metric("cost")].append(cost)
        self.ce[metric("ce")] += ce
        self.ce[metric("ce") + _TOKENS] += ce_tokens

    def over(self, world: World) -> Tally:
        """Combine sums and maxima over the ranks; every rank must have the same metric names."""
        mine = {**{("values", name): sum(parts) for name, parts in self.values.items()}}
        mine |= {("costs", name): sum(parts) for name, parts in self.costs.items()}
        mine |= {("ce", name): value for name, value in self.ce.items()}
        keys = sorted(mine)
        totals = world.all_reduce(torch.tensor([mine[key] for key in keys], dtype=torch.float64)).tolist()
        largest = float(world.all_reduce(torch.tensor(self.largest, dtype=torch.float64), "max"))
        found = Tally(largest=largest)
        for (kind, name), total in zip(keys, totals, strict=True):
            match kind:
                case "values":
                    found.values[name].append(total)
                case "costs":
                    found.costs[name].append(total)
                case "ce":
                    found.ce[name] = total
        return found

    def take(self, minibatch: Tally, *, constrained: bool) -> None:
        """Add the sums of an optimizer step; those of the constraints only if `constrained`."""
        for name, parts in minibatch.values.items():
            self.add(name, sum(parts))
        self.largest = max(self.largest, minibatch.largest)
        self.steps += 1
        if constrained:
            for name, parts in minibatch.costs.items():
                self.costs[name].append(sum(parts))
            for name, value in minibatch.ce.items():
                self.ce[name] += value

    def finish(self) -> Update:
        """Return the means over the optimizer steps."""
        metrics = {name: sum(parts) / len(parts) for name, parts in (self.values | self.costs).items()}
        if self.largest > float("-inf"):
            metrics["policy/ratio_max"] = self.largest
        for name, value in self.ce.items():
            if not name.endswith(_TOKENS) and self.ce[name + _TOKENS]:
                metrics[name] = value / self.ce[name + _TOKENS]
        return Update(metrics, self.steps, tuple(self.skipped))

"""Measurements of a batch before the gradient: old logprobs, values, the reference, and the penalty on rewards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from refinerl import objective
from refinerl.contracts import Constraint, Constraints, Trainer, World
from refinerl.contracts.shapes import for_tokens
from refinerl.kernels.prefixes import Sharing
from refinerl.loop.batch import collate_refinements, micro_batches, scatter_rows
from refinerl.records import Anchors, Measured, Outputs, Rows


@dataclass(frozen=True)
class Others:
    """The y of a step that have no part in the surrogate, with what the metrics of all sampled y need of them."""

    rows: Rows
    policy: Outputs
    reference_logprobs: Tensor  # (R, T)
    whole: bool
    """True if the metrics can be given: all sampled y are measured."""
    referred: bool
    """True if the reference was measured."""


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """The models of an update and the sizes of their passes."""

    policy: Trainer
    reference: Trainer | None
    """None: the policy without its adapter is the reference."""
    critic: Trainer | None
    constraint: Constraints
    world: World
    token_budget: int
    """Most tokens of a micro-batch: padding included, or those of the tree if prefixes are shared."""
    max_rows: int | None
    sharing: Sharing = "never"
    """Computation of prefixes that rows share. All models must be prepared for it."""
    correction: Literal["off", "token", "sequence"] = "off"
    """Correction of the mismatch between the engine that sampled y and the trainer."""
    correction_cap: float = 2.0
    progress: Callable[[int], None] = lambda _: None
    """Called with a number of rows that have gone through a model; these numbers add up to about what `expect` got."""
    expect: Callable[[int], None] = lambda _: None
    """Called with the number of rows of a step, when it is known."""

    def measure(self, batch: Rows, others: Rows, *, kl: bool, step: int | None = None) -> tuple[Measured, Others]:
        """Measure y before the update: logprobs and entropies under π_old, values and, if needed, the reference.

        Args:
            batch: the rows of the update.
            others: the other y that the step sampled, which have no part in the surrogate (`Collected.others`).
            kl: measure KL and entropy over all sampled y, `others` included. Without it, both are given only where they
                cost nothing: without others, and the KL if a constraint needs the reference.
            step: number of the step that `update` gets too. It then takes π_old of its first minibatch from its own
                forward pass, so that their ratio is exactly 1 and this pass is saved. None: all y are measured here.
        """
        rows = torch.nonzero(batch.surrogate).flatten()
        fresh = torch.zeros(len(batch), dtype=torch.bool)
        if step is not None:
            fresh[self._fresh(batch, step)] = True
        fresh &= batch.surrogate
        self.expect(self._passes(batch, others, fresh=fresh, kl=kl))
        rest = torch.arange(len(others) if kl else 0)
        unknown = torch.full(batch.mask.shape, math.nan)
        old = self._forward(self.policy, batch, torch.nonzero(batch.surrogate & ~fresh).flatten())
        theirs = self._forward(self.policy, others, rest)
        values = unknown if self.critic is None else present(self._forward(self.critic, batch, rows).values)
        reference, of_others = unknown, torch.full(others.mask.shape, math.nan)
        referred = kl or any(part.needs_reference for part in self.constraint.parts)
        if referred:
            reference, of_others = (found.logprobs for found in self._reference((batch, rows), (others, rest)))
        later = batch.mask & fresh.unsqueeze(-1)
        measured = Measured(
            **batch.tensors(),
            fresh=fresh,
            old_logprobs=old.logprobs.masked_fill(later, math.nan),
            old_entropies=old.entropies.masked_fill(later, math.nan),
            reference_logprobs=reference,
            values=values,
            correction=self._correction(old.logprobs, batch, batch.mask & (batch.surrogate & ~fresh).unsqueeze(-1)),
        )
        whole = kl or not int(self.world.all_reduce(torch.tensor(len(others)), "max"))
        return measured, Others(others, theirs, of_others, whole=whole, referred=referred)

    def _fresh(self, batch: Rows, step: int) -> Tensor:
        """Return the rows, (n,) int64, whose π_old the update of this step will compute itself: none."""
        return torch.zeros(0, dtype=torch.int64)

    def _correction(self, old_logprobs: Tensor, batch: Rows, mask: Tensor) -> Tensor:
        """Return the weight of each token, (R, T), that undoes the engine's mismatch; 1 where `mask` is False."""
        if self.correction == "off":
            return torch.ones_like(old_logprobs)
        return objective.truncated_importance(
            old_logprobs, batch.sampling_logprobs, mask, self.correction, self.correction_cap
        )

    def metrics(self, batch: Measured, others: Others) -> dict[str, float]:
        """Compute the engine's mismatch, and entropy and KL over all sampled y, of which π_old is known by now."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        metrics = self._mismatch(batch.old_logprobs, batch.sampling_logprobs, mask)
        theirs = others.rows.mask
        if others.whole:
            metrics["policy/entropy"] = self._mean((batch.old_entropies, mask), (others.policy.entropies, theirs))
        if others.whole and others.referred:
            every = torch.ones(len(others.rows), dtype=torch.bool)
            metrics |= self._kl(
                (batch.old_logprobs, batch.reference_logprobs, mask, batch.surrogate),
                (others.policy.logprobs, others.reference_logprobs, theirs, every),
            )
        return metrics

    def _passes(self, batch: Rows, others: Rows, *, fresh: Tensor, kl: bool) -> int:
        """Count the rows that go through a model without gradient; of those in `fresh` π_old is not measured."""
        measured = int(batch.surrogate.sum())
        rest = len(others) if kl else 0
        parts = self.constraint.parts
        known = measured - int(fresh.sum())
        count = known + rest + (measured if self.critic is not None else 0)
        count += measured + rest if kl or any(part.needs_reference for part in parts) else 0
        return count + (len(batch) - known if any(part.apply == "reward" for part in parts) else 0)

    def penalty(self, batch: Measured, anchors: Anchors) -> tuple[Tensor, dict[str, float]]:
        """Return Σ β·cost at y's positions, (R, T), detached, by the policy that sampled y; 0 unless apply = reward."""
        total = torch.zeros(batch.mask.shape)
        metrics: dict[str, float] = {}
        charging = [part for part in self.constraint.parts if part.apply == "reward"]
        if charging:
            outputs, batch = self._by_policy(batch, torch.stack([part.rows(batch) for part in charging]).any(0))
            for part in charging:
                charged, measured = self._charge(part, outputs, batch, anchors)
                total = total + charged
                metrics |= measured
        return total, metrics

    def watch(self, batch: Measured, anchors: Anchors) -> dict[str, float]:
        """Measure what has no weight, by the policy that sampled y: constraints of the loss with β = 0, and probes."""
        metrics: dict[str, float] = {}
        idle = [part for part in self.constraint.parts if part.apply == "loss" and not part.beta]
        if idle:
            outputs, batch = self._by_policy(batch, torch.stack([part.rows(batch) for part in idle]).any(0))
            for part in idle:
                metrics |= self._idle(part, outputs, batch)
        if anchors.probes is not None:
            probes = collate_refinements(anchors.probes)
            outputs = self._forward(self.policy, probes, torch.arange(len(probes)))
            total, tokens = self._weighed(objective.cross_entropy_cost(outputs.logprobs), probes, probes.is_constraint)
            metrics["refiner/ce"] = total / tokens if tokens else math.nan
        return metrics

    def logprobs(self, rows: Rows) -> Tensor:
        """Return the policy's logprobs of the targets of all rows, (R, T), without gradient. All ranks call it."""
        return self._forward(self.policy, rows, torch.arange(len(rows))).logprobs

    def _by_policy(self, batch: Measured, rows: Tensor) -> tuple[Outputs, Measured]:
        """Return π_old's outputs on rows, (R,) bool; what `measure` has computed is not computed again.

        The batch is returned with the outputs of these rows.
        """
        known = batch.surrogate & ~batch.fresh
        found = self._forward(self.policy, batch, torch.nonzero(rows & ~known).flatten())
        kept = (rows & known).unsqueeze(-1)
        outputs = replace(
            found,
            logprobs=torch.where(kept, batch.old_logprobs, found.logprobs),
            entropies=torch.where(kept, batch.old_entropies, found.entropies),
        )
        mine = (rows & batch.surrogate).unsqueeze(-1)
        return outputs, batch.with_(
            old_logprobs=torch.where(mine, outputs.logprobs, batch.old_logprobs),
            old_entropies=torch.where(mine, outputs.entropies, batch.old_entropies),
        )

    def _idle(self, part: Constraint, outputs: Outputs, batch: Measured) -> dict[str, float]:
        """Return the cost of a constraint of the loss, and its cross-entropy if its rows are refinements."""
        rows = part.rows(batch)
        cost = for_tokens(part.cost(outputs, batch), batch, part, "cost")
        total, tokens = self._weighed(cost, batch, rows)
        ce, refined = self._weighed(cost, batch, rows & batch.is_constraint)
        rollouts = float(self.world.all_reduce((~batch.is_constraint).sum().double()))
        metrics: dict[str, float] = {}
        if rollouts:
            metrics[part.metric("cost")] = total * objective.constraint_weight(1.0, part.reduction, rollouts, tokens)
        if refined:
            metrics[part.metric("ce")] = ce / refined
        return metrics

    def _weighed(self, cost: Tensor, batch: Rows, rows: Tensor) -> tuple[float, float]:
        """Sum the cost of some rows, (R,) bool, over all ranks, with the rows' weights; return it and their tokens."""
        mask = batch.mask & rows.unsqueeze(-1)
        costs = (torch.where(mask, cost, 0.0).double().sum(-1) * batch.weight).sum()
        total, tokens = self.world.all_reduce(torch.stack([costs, (mask.sum(-1) * batch.weight).sum()])).tolist()
        return total, tokens

    def _charge(
        self, part: Constraint, outputs: Outputs, batch: Measured, anchors: Anchors
    ) -> tuple[Tensor, dict[str, float]]:
        rows = part.rows(batch)
        mask = batch.mask & rows.unsqueeze(-1)
        cost = for_tokens(part.cost(outputs, batch), batch, part, "cost") * mask
        clamped = cost.clamp(-objective.KL_CLAMP, objective.KL_CLAMP)
        sums = [clamped.double().sum(), (~batch.is_constraint).sum(), (rows & batch.is_constraint).sum()]
        total, rollouts, refined = self.world.all_reduce(torch.stack([x.double() for x in sums])).tolist()
        metrics = {part.metric("cost"): total / max(1.0, rollouts)}
        if refined:
            metrics[part.metric("ce")] = self._mean((cost, mask))
        return part.beta * part.carry(clamped, batch, anchors), metrics

    def _reference(self, *sets: tuple[Rows, Tensor]) -> list[Outputs]:
        """Run the reference on rows of y; for a LoRA policy this is the policy without its adapter."""
        if self.reference is None:
            return [self._forward(self.policy, batch, rows, adapter=False) for batch, rows in sets]
        self.reference.wake()
        outputs = [self._forward(self.reference, batch, rows) for batch, rows in sets]
        self.reference.sleep()
        return outputs

    def _kl(self, *sets: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Estimate the KL to the reference on y: logprobs of the policy, of the reference, mask of tokens, of rows."""
        tokens, responses = [], []
        for policy, reference, mask, rows in sets:
            tokens.append((objective.kl_estimate(policy, reference, "k3"), mask))
            responses.append(((objective.kl_estimate(policy, reference, "k1") * mask).sum(-1), rows))
        return {
            "policy/kl_to_reference": self._mean(*tokens),
            "policy/kl_to_reference_sum": self._mean(*responses),
        }

    def _forward(self, trainer: Trainer, batch: Rows, rows: Tensor, *, adapter: bool = True) -> Outputs:
        """Return the outputs of some rows, without gradient, in the shape (R, T) of the whole batch."""
        parts = {name: torch.zeros(batch.mask.shape) for name in ("logprobs", "entropies", "values")}
        with torch.no_grad():
            for part in self._parts(batch, rows):
                outputs = trainer.forward(batch.select(part), adapter=adapter)
                self.progress(len(part))
                for name in parts:
                    found = getattr(outputs, name)
                    if found is not None and found.numel():
                        parts[name] = parts[name] + scatter_rows(batch, part, found.cpu())
        return Outputs(parts["logprobs"], parts["entropies"], torch.zeros(()), values=parts["values"])

    def _parts(self, batch: Rows, rows: Tensor) -> list[Tensor]:
        """Split rows into micro-batches. All ranks run a model together, so each has as many; the last may be empty."""
        parts = micro_batches(batch, rows, self.token_budget, self.max_rows, self.sharing)
        most = int(self.world.all_reduce(torch.tensor(len(parts)), "max"))
        return parts + [rows[:0]] * (most - len(parts))

    def _mean(self, *sets: tuple[Tensor, Tensor]) -> float:
        """Return the mean over the masked elements of each (values, mask) and of all ranks; NaN if there are none."""
        sums = [torch.stack([x[mask].double().sum(), mask.sum().double()]) for x, mask in sets]
        total, count = self.world.all_reduce(torch.stack(sums).sum(0)).tolist()
        return total / count if count else math.nan

    def _mismatch(self, old_logprobs: Tensor, sampling_logprobs: Tensor, mask: Tensor) -> dict[str, float]:
        """Measure the mismatch on the tokens of all ranks whose logprob the engine gave; NaN if there are none."""
        known = mask & sampling_logprobs.isfinite()
        k3, distance = objective.mismatch(old_logprobs, sampling_logprobs)
        mean = self._mean((k3, known))
        largest = float(self.world.all_reduce(torch.cat([distance[known], distance.new_zeros(1)]).max(), "max"))
        return {"policy/mismatch_kl": mean, "policy/mismatch_max": math.nan if math.isnan(mean) else largest}


def present(values: Tensor | None) -> Tensor:
    """Return the values of a critic's outputs, which must be there."""
    if values is None:
        raise TypeError("critic.forward must return values")
    return values

"""One policy update from one measured batch: epochs of minibatches of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from refinerl import objective
from refinerl.contracts import Algorithm, Constraint, Trainer
from refinerl.contracts.shapes import check_advantages, for_tokens
from refinerl.loop.batch import minibatches
from refinerl.loop.before import Before
from refinerl.loop.measure import Measurer, Others, present
from refinerl.loop.tally import Tally
from refinerl.loop.work import constraint_share
from refinerl.records import Batch, Outputs, Rows, Update, sample_seed


class Sizes(NamedTuple):
    """Counts of a minibatch over all ranks."""

    tokens: float
    """Tokens of the y that take part in the surrogate."""
    sequences: float
    """Number of these y that have a token."""
    read: float
    """Tokens of prompts and completions of all rows that have a weight in the loss."""


@dataclass(frozen=True, kw_only=True)
class Updater(Measurer):
    """The parts and sizes of an update, without state."""

    algorithm: Algorithm
    minibatch: int
    """Rollouts per optimizer step."""
    epochs: int
    entropy_bonus: float
    seed: int

    def update(self, batch: Batch, step: int, others: Others | None = None, *, share: bool = False) -> Update:
        """Take one optimizer step per epoch and minibatch, or none where something is not finite.

        Args:
            batch: what `measure` returned for this step, with advantages.
            step: number of the step, which seeds the split into minibatches.
            others: what `measure` returned beside it; with it, the metrics of all sampled y are given.
            share: measure `constraint/gradient_share` on the first minibatch: the norm of the constraints' gradient
                over that of the whole, by one more forward and backward pass over the rows that a constraint of the
                loss weighs.

        Raises:
            ValueError: the batch was measured for another step.
        """
        check_advantages(batch, self.algorithm)
        work = {} if others is None else {"update/constraint_share": self._share_of_work(batch)}
        tally = Tally()
        for epoch in range(self.epochs):
            for number, rows in enumerate(self._split(batch, step, epoch)):
                minibatch = batch.select(rows)
                first = share and epoch == 0 and not tally.steps and not tally.skipped
                before = Before(minibatch)
                self._optimize(minibatch, self._weigh(minibatch), tally, before, first_epoch=epoch == 0, share=first)
                if epoch == number == 0:
                    batch = self._corrected(before.complete(batch, rows))
        update = tally.finish()
        seen = {} if others is None else self.metrics(batch, others)
        return replace(update, metrics={**update.metrics, **work, **seen})

    def _share_of_work(self, batch: Batch) -> float:
        parts, critic = self.constraint.parts, self.critic is not None
        return constraint_share(batch, parts, epochs=self.epochs, critic=critic, world=self.world)

    def _corrected(self, batch: Batch) -> Batch:
        """Return the batch with the correction of all y, whose π_old is known."""
        mask = batch.mask & batch.surrogate.unsqueeze(-1)
        return batch.with_(correction=self._correction(batch.old_logprobs, batch, mask))

    def _split(self, batch: Rows, step: int, epoch: int) -> Iterator[Tensor]:
        """Give this rank's rows of each minibatch of an epoch."""
        return minibatches(batch, self.minibatch, sample_seed(self.seed, step, "minibatch", epoch), self.world)

    def _fresh(self, batch: Rows, step: int) -> Tensor:
        """Return the rows of the first minibatch, before which the policy has not changed; none if they are needed."""
        none = torch.zeros(0, dtype=torch.int64)
        return none if reads_old_logprobs(self.algorithm) else next(self._split(batch, step, 0), none)

    def _passes(self, batch: Rows, others: Rows, *, fresh: Tensor, kl: bool) -> int:
        """Count the rows that go through a model in a step: those that are measured, and those of the update."""
        trained = len(batch) + (int(batch.surrogate.sum()) if self.critic is not None else 0)
        return super()._passes(batch, others, fresh=fresh, kl=kl) + self.epochs * trained

    @property
    def _in_loss(self) -> list[Constraint]:
        return [part for part in self.constraint.parts if part.apply == "loss"]

    def _weigh(self, minibatch: Batch) -> list[Tensor]:
        """Return the weights (R,) of the rows in each constraint of the loss.

        The normaliser is fixed over the minibatch and all ranks, before the first backward.
        """
        weights = []
        for part in self._in_loss:
            rows = part.rows(minibatch)
            tokens = (minibatch.mask.sum(-1) * minibatch.weight)[rows].sum()
            rollouts = (~minibatch.is_constraint).sum().double()
            tokens, rollouts = self.world.all_reduce(torch.stack([tokens, rollouts]))
            weight = objective.constraint_weight(1.0, part.reduction, float(rollouts), float(tokens))
            weights.append(part.beta * weight * rows * minibatch.weight)
        if sum(bool((weight * minibatch.is_constraint).any()) for weight in weights) > 1:
            raise ValueError("at most one constraint may hold the refinements, whose gradients are one sum")
        return weights

    def _optimize(
        self, minibatch: Batch, weights: list[Tensor], tally: Tally, before: Before, *, first_epoch: bool, share: bool
    ) -> None:
        # The fused kernel has one weight for each refinement; only one constraint has any.
        total = sum(weights, torch.zeros(len(minibatch), dtype=torch.float64))
        y_mask = minibatch.mask & minibatch.surrogate.unsqueeze(-1)
        weighed = minibatch.surrogate | torch.stack([total, *weights]).ne(0).any(0)
        counts = torch.stack([y_mask.sum(), y_mask.any(-1).sum(), minibatch.attention_mask[weighed].sum()])
        sizes = Sizes(*self.world.all_reduce(counts.double()).tolist())
        parts = self._parts(minibatch, torch.nonzero(weighed).flatten())
        if not parts:
            return
        constraint_norm = self._constraint_norm(minibatch, total, weights) if share else None
        sums = Tally()
        # No rank stops at what is not finite: the others would wait for it in the next micro-batch.
        found = [
            self._backward(minibatch, part, total[part], [w[part] for w in weights], sizes, sums, before)
            for part in parts
        ]
        bad = [name for names in self.world.all_gather_object(found) for name in names if name is not None]
        if bad:
            self._discard()
            tally.skipped.append(bad[0])
            return
        rate = self.policy.learning_rate
        norm = self.policy.step()
        if not math.isfinite(norm):
            tally.skipped.append(f"gradient of the policy ({self.policy.bad_gradient() or 'its norm overflows'})")
            self._discard()
            return
        if self.critic is not None:
            critic_rate = self.critic.learning_rate
            critic_norm = self.critic.step()
            if not math.isfinite(critic_norm):
                tally.skipped.append(f"gradient of the critic ({self.critic.bad_gradient() or 'its norm overflows'})")
                self._discard()
            else:
                tally.add("critic/grad_norm", critic_norm)
                tally.add("critic/learning_rate", critic_rate)
        tally.add("policy/grad_norm", norm)
        tally.add("policy/learning_rate", rate)
        if constraint_norm is not None and norm:
            tally.add("constraint/gradient_share", constraint_norm / norm)
        tally.take(sums.over(self.world), constrained=first_epoch)

    def _backward(
        self,
        minibatch: Batch,
        part: Tensor,
        total_weight: Tensor,
        constraint_weights: list[Tensor],
        sizes: Sizes,
        sums: Tally,
        before: Before,
    ) -> str | None:
        """Run one forward and one backward pass over rows of y and ỹ; return the name of a loss that is not finite."""
        given = minibatch.select(part)
        outputs, rows = self._forward_with_grad(given, total_weight)
        before.take(part, outputs)
        mask = rows.mask & rows.surrogate.unsqueeze(-1)
        weights = self.algorithm.weights(mask, sizes.tokens, sizes.sequences)
        surrogate = for_tokens(self.algorithm.policy_loss(outputs, rows), rows, self.algorithm, "policy_loss")
        policy_loss = (surrogate * rows.correction * weights).sum()
        entropy = (outputs.entropies * weights).sum()
        constraint_loss = self._constraint_loss(outputs, rows, constraint_weights)
        for constraint, row_weight in zip(self._in_loss, constraint_weights, strict=True):
            self._count_constraint(constraint, outputs, rows, row_weight.to(mask.device), sums)
        loss = policy_loss + constraint_loss - self.entropy_bonus * entropy
        self.policy.backward(loss)
        self._count(outputs, rows, mask, sizes.tokens, sums)
        sums.add("update/tokens_shared", outputs.shared / max(sizes.read, 1.0))
        sums.add("policy/loss", float(policy_loss.detach()))
        sums.add("constraint/loss", float(constraint_loss.detach()))
        self.progress(len(rows))
        losses = {"policy loss": policy_loss, "constraint loss": constraint_loss, "loss": loss}
        if self.critic is not None:
            losses["value loss"] = self._backward_values(self.critic, given, rows, sizes, sums)
        return next((name for name, value in losses.items() if not torch.isfinite(value)), None)

    def _constraint_norm(self, minibatch: Batch, total: Tensor, weights: list[Tensor]) -> float | None:
        """Return the norm of the constraints' gradient; None without such constraints, or if it cannot be read."""
        if not self.policy.reads_gradients or not any(part.beta for part in self._in_loss):
            return None
        weighed = torch.stack([total, *weights]).ne(0).any(0)
        parts = self._parts(minibatch, torch.nonzero(weighed).flatten())
        if not parts:
            return 0.0
        for part in parts:
            outputs, rows = self._forward_with_grad(minibatch.select(part), total[part])
            loss = self._constraint_loss(outputs, rows, [w[part] for w in weights])
            # ZeRO-3 counts the outputs that take part in a backward pass, and ranks have to agree, as in `_backward`.
            every = outputs.logprobs.sum() + outputs.entropies.sum() + outputs.weighted_nll
            self.policy.backward(loss + 0.0 * every)
            self.progress(len(rows))
        norm = self.policy.gradient_norm()
        self.policy.discard()
        return norm

    def _constraint_loss(self, outputs: Outputs, rows: Batch, weights: list[Tensor]) -> Tensor:
        """Return the sum of the losses of the constraints."""
        loss = torch.zeros((), device=rows.mask.device)
        for part, row_weight in zip(self._in_loss, weights, strict=True):
            loss = loss + part.loss(outputs, rows, row_weight.to(rows.mask.device))
        return loss

    def _backward_values(self, critic: Trainer, given: Batch, rows: Batch, sizes: Sizes, sums: Tally) -> Tensor:
        """Run the critic's forward and backward pass over the y among the rows, which are `given` on the CPU."""
        chosen = torch.nonzero(given.surrogate).flatten()
        values = present(critic.forward(given.select(chosen)).values)
        y = rows.select(chosen.to(rows.mask.device)).to(values.device)
        self.progress(len(y))
        weights = self.algorithm.weights(y.mask, sizes.tokens, sizes.sequences)
        loss = (self.algorithm.value_loss(values, y) * weights).sum()
        critic.backward(loss)
        sums.add("critic/loss", float(loss.detach()))
        return loss

    def _count(self, outputs: Outputs, rows: Batch, mask: Tensor, tokens: float, sums: Tally) -> None:
        ratio = self.algorithm.ratio(outputs.logprobs.detach(), rows)
        low, high = self.algorithm.clipped(ratio, rows)
        sums.add("policy/clip_fraction_low", float((low & mask).sum()) / max(tokens, 1.0))
        sums.add("policy/clip_fraction_high", float((high & mask).sum()) / max(tokens, 1.0))
        if bool(mask.any()):
            sums.largest = max(sums.largest, float(ratio[mask].max()))

    def _count_constraint(self, part: Constraint, outputs: Outputs, rows: Batch, weights: Tensor, sums: Tally) -> None:
        """Add the costs of a constraint of the loss, whose rows have these weights; `watch` measures one with β = 0."""
        if part.beta == 0:
            return
        carrying = part.rows(rows)
        cost = for_tokens(part.cost(outputs, rows), rows, part, "cost").detach()
        cost = (cost * rows.mask).double()[carrying].sum(-1)
        refined = rows.is_constraint & carrying
        sums.add_cost(
            part.metric,
            cost=float((cost * weights[carrying]).sum()) / part.beta,
            ce=float((cost * rows.weight[carrying])[rows.is_constraint[carrying]].sum()),
            ce_tokens=float((rows.mask.sum(-1) * rows.weight)[refined].sum()),
        )

    def _forward_with_grad(self, rows: Batch, weights: Tensor) -> tuple[Outputs, Batch]:
        """Return the policy's outputs, and the rows on their device with π_old where it was not measured before.

        The policy has not changed yet where it was not, so π_old are the outputs themselves, detached.
        """
        outputs = self.policy.forward(rows, weights)
        rows = rows.to(outputs.logprobs.device)  # batches are made on the CPU
        unknown = rows.mask & rows.fresh.unsqueeze(-1)
        old = torch.where(unknown, outputs.logprobs.detach(), rows.old_logprobs)
        if self.correction != "off":
            rows = rows.with_(correction=torch.where(unknown, self._correction(old, rows, unknown), rows.correction))
        return outputs, rows.with_(old_logprobs=old)

    def _discard(self) -> None:
        self.policy.discard()
        if self.critic is not None:
            self.critic.discard()


def reads_old_logprobs(algorithm: Algorithm) -> bool:
    """Return True if an algorithm's `advantages` may read `Measured.old_logprobs`, so that they are measured first.

    The class that has the method says so by `reads_old_logprobs`; one that does not say it may read them.
    """
    owner = next((kind for kind in type(algorithm).__mro__ if "advantages" in vars(kind)), object)
    return bool(vars(owner).get("reads_old_logprobs", True))

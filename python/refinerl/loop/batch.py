"""Records as padded tensors. All padding is done here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refinerl.contracts import ALONE, World
from refinerl.kernels.prefixes import Sharing
from refinerl.loop.sharing import share_rows
from refinerl.records import Completion, Prompt, Refinement, RolloutGroup, Rows

_MEMBERS = 2**20
"""More members than a group has."""


@dataclass(frozen=True)
class _Row:
    prompt: Prompt
    completion: Completion
    origin: int
    group: int
    place: int
    weight: float
    reward: float
    surrogate: bool
    is_constraint: bool


def collate(groups: Sequence[RolloutGroup], refinements: Sequence[Refinement] = (), *, merge: bool = True) -> Rows:
    """Make a row of every y, in order, then of every accepted ỹ.

    Identical (x, ỹ) are merged into one row that carries their count as weight; `merge=False` keeps them apart, for
    batches that are split into minibatches, where each ỹ belongs to the minibatch of its y.

    Raises:
        ValueError: two rollouts have the same key, or a prompt has no token.
    """
    rows: list[_Row] = []
    index: dict[tuple[str, int], int] = {}
    for number, group in enumerate(groups):
        for member, rollout in enumerate(group.rollouts):
            scored = rollout.reward is not None
            if index.setdefault(rollout.key, len(rows)) != len(rows):
                raise ValueError(f"two rollouts of the step are sample {rollout.sample} of prompt {rollout.prompt.id}")
            rows.append(
                _Row(
                    prompt=rollout.prompt,
                    completion=rollout.completion,
                    origin=len(rows),
                    group=number,
                    place=group.position * _MEMBERS + member,
                    weight=float(scored),
                    reward=rollout.reward.value if rollout.reward else float("nan"),
                    surrogate=scored and group.surrogate,
                    is_constraint=False,
                )
            )
    for refinement in refinements:
        if not refinement.accepted or (merge and refinement.weight == 0):
            continue
        origin = index[refinement.rollout.key]
        y, weight = rows[origin], refinement.weight if merge else 1
        rows.append(_refined(refinement, origin=origin, group=y.group, place=y.place, weight=weight))
    return _tensors(rows)


def collate_refinements(refinements: Sequence[Refinement]) -> Rows:
    """Make a row of every accepted ỹ, without its y; identical ones are merged.

    Raises:
        ValueError: a prompt has no token.
    """
    accepted = [refinement for refinement in refinements if refinement.accepted and refinement.weight]
    return _tensors([_refined(r, origin=i, group=i, place=i, weight=r.weight) for i, r in enumerate(accepted)])


def _refined(refinement: Refinement, *, origin: int, group: int, place: int, weight: float) -> _Row:
    return _Row(
        prompt=refinement.rollout.prompt,
        completion=refinement.completion,
        origin=origin,
        group=group,
        place=place,
        weight=float(weight),
        reward=refinement.reward.value if refinement.reward else float("nan"),
        surrogate=False,
        is_constraint=True,
    )


def _tensors(rows: Sequence[_Row]) -> Rows:
    if empty := [row.prompt.id for row in rows if not row.prompt.token_ids]:
        raise ValueError(
            f"prompt {empty[0]} must have a token, from which the first one of its completion is predicted"
        )
    prompts = [torch.tensor(row.prompt.token_ids, dtype=torch.int64) for row in rows]
    targets = [torch.tensor(row.completion.token_ids, dtype=torch.int64) for row in rows]
    input_ids, attention_mask = _pad([torch.cat(pair) for pair in zip(prompts, targets, strict=True)])
    padded_targets, mask = _pad(targets)
    return Rows(
        input_ids=input_ids,
        attention_mask=attention_mask,
        prompt_lengths=torch.tensor([len(p) for p in prompts], dtype=torch.int64),
        targets=padded_targets,
        mask=mask,
        is_constraint=torch.tensor([row.is_constraint for row in rows], dtype=torch.bool),
        origin=torch.tensor([row.origin for row in rows], dtype=torch.int64),
        group=torch.tensor([row.group for row in rows], dtype=torch.int64),
        place=torch.tensor([row.place for row in rows], dtype=torch.int64),
        weight=torch.tensor([row.weight for row in rows], dtype=torch.float64),
        reward=torch.tensor([row.reward for row in rows], dtype=torch.float64),
        surrogate=torch.tensor([row.surrogate for row in rows], dtype=torch.bool),
        sampling_logprobs=_sampling_logprobs(rows, mask),
    )


def _sampling_logprobs(rows: Sequence[_Row], mask: Tensor) -> Tensor:
    """Return the engine's logprobs, (R, T): NaN if it gave none, zero where there is no token of y."""
    found = torch.zeros(mask.shape)
    for i, row in enumerate(rows):
        length = len(row.completion.token_ids)
        if not row.is_constraint:
            known = len(row.completion.logprobs) == length
            found[i, :length] = torch.tensor(row.completion.logprobs) if known else float("nan")
    return found


def _pad(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad sequences with 0 at the right, (rows, longest); with the mask of their tokens."""
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.int64)
    padded = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True) if len(sequences) else torch.zeros(0, 0)
    return padded.to(torch.int64), torch.arange(padded.shape[1]) < lengths.unsqueeze(-1)


def minibatches(batch: Rows, rollouts: int, seed: int, world: World = ALONE) -> Iterator[Tensor]:
    """Give this rank's rows of each minibatch, in an order drawn by seed, each y together with its ỹ.

    A minibatch has `rollouts` y of all ranks, the same ones on any number of ranks; the last may be smaller. The y of
    revived groups, which have no part in the surrogate, are spread over these minibatches and do not add to their
    number. A minibatch that holds the whole batch keeps the batch's order.
    """
    originals = torch.nonzero(~batch.is_constraint).flatten()
    revived = ~batch.surrogate & (batch.weight > 0)
    columns = (batch.place[originals], originals, revived[originals])
    mine = [(place, world.rank, row, extra) for place, row, extra in zip(*(c.tolist() for c in columns), strict=True)]
    every = sorted(y for part in world.all_gather_object(mine) for y in part)
    planned, extra = [y for y in every if not y[3]], [y for y in every if y[3]]
    count = -(-max(len(planned), len(extra)) // rollouts)
    if count > 1:
        generator = torch.Generator().manual_seed(seed)
        planned, extra = (
            [part[i] for i in torch.randperm(len(part), generator=generator).tolist()] for part in (planned, extra)
        )
    for number in range(count):
        chosen = planned[number * rollouts : (number + 1) * rollouts] + extra[number::count]
        own = torch.tensor([row for _, rank, row, _ in chosen if rank == world.rank], dtype=torch.int64)
        refined = torch.nonzero(batch.is_constraint & torch.isin(batch.origin, own)).flatten()
        yield torch.cat([own, refined])


def scatter_rows(batch: Rows, rows: Tensor, values: Tensor) -> Tensor:
    """Return a zero (R, T) tensor with the (n, t) values in the given rows."""
    full = torch.zeros(batch.mask.shape, dtype=values.dtype)
    full[rows, : values.shape[1]] = values
    return full


def micro_batches(
    batch: Rows, rows: Tensor, token_budget: int, max_rows: int | None = None, sharing: Sharing = "never"
) -> list[Tensor]:
    """Split rows into groups within the budget of tokens: those that a network computes once, or those with padding.

    Rows that share prefixes are together where that pays (`sharing`); the others are with rows of similar length. A row
    longer than the budget is alone.
    """
    shared: list[Tensor] = []
    if sharing != "never" and len(rows):
        shared, rows = share_rows(batch, rows, token_budget, max_rows, always=sharing == "always")
    lengths = batch.attention_mask[rows].sum(-1)
    parts: list[list[int]] = []
    for position in torch.argsort(lengths, descending=True, stable=True).tolist():
        part = parts[-1] if parts else []
        longest = int(lengths[part[0]]) if part else 0  # the part's first row is its longest
        full = (len(part) + 1) * longest > token_budget or (max_rows is not None and len(part) >= max_rows)
        if not part or full:
            parts.append([position])
        else:
            part.append(position)
    return shared + [rows[torch.tensor(part)] for part in parts]

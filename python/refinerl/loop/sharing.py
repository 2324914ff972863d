"""Micro-batches of rows that share prefixes, which a network computes once (`refinerl.kernels.prefixes`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from refinerl.kernels.prefixes import pays, prefix_order
from refinerl.records import Rows


@dataclass(frozen=True)
class _Neighbour:
    """A row in the order in which rows share most with the one before."""

    number: int
    """Its index in this order."""
    row: int
    """Its index among the given rows."""
    length: int
    fresh: int
    """Tokens that it does not share with the one before."""


class _Block:
    """Neighbours that become a micro-batch. `size` is at least the number of tokens of their tree."""

    def __init__(self) -> None:
        self.rows: list[_Neighbour] = []
        self.size = 0

    def cost(self, row: _Neighbour) -> int:
        """Count the tokens that a row would add."""
        follows = bool(self.rows) and self.rows[-1].number + 1 == row.number
        return row.fresh if follows else row.length

    def add(self, row: _Neighbour) -> None:
        self.size += self.cost(row)
        self.rows.append(row)

    @property
    def pays(self) -> bool:
        """Tell whether the tree is faster than the rows."""
        return self._pays(0, 0, 0)

    def pays_with(self, row: _Neighbour) -> bool:
        """Tell whether it still is with another row."""
        return self._pays(row.length, self.cost(row), 1)

    def _pays(self, tokens: int, size: int, rows: int) -> bool:
        return pays(tokens + sum(row.length for row in self.rows), size + self.size, rows + len(self.rows))


def share_rows(
    batch: Rows, rows: Tensor, token_budget: int, max_rows: int | None, *, always: bool
) -> tuple[list[Tensor], Tensor]:
    """Split rows into groups whose trees are within the budget of tokens; a longer row is alone.

    The rows of a prompt stay together if their tree is within the budget. Unless `always`, a prompt whose rows are
    faster alone starts no tree, even if its beginning is that of others, as an instruction is. Its rows join trees that
    have room and still pay, where they need no padding and no pass of their own. Returns the groups, those of most
    tokens first, so that ranks have trees of like size at a time, and the rows that are left.
    """
    most = len(rows) if max_rows is None else max_rows
    blocks: list[_Block] = []
    left: list[_Neighbour] = []
    for group in _prompts(batch, rows):
        if not always and not group.pays:
            left += group.rows
            continue
        last = blocks[-1] if blocks else _Block()
        fits = last.size + group.size <= token_budget and len(last.rows) + len(group.rows) <= most
        fits_alone = group.size <= token_budget and len(group.rows) <= most
        if not blocks or (fits_alone and not fits):
            blocks.append(_Block())
        for row in group.rows:
            last = blocks[-1]
            if last.rows and (last.size + last.cost(row) > token_budget or len(last.rows) == most):
                blocks.append(_Block())
            blocks[-1].add(row)
    kept = [block for block in blocks if always or block.pays]
    left += [row for block in blocks if not always and not block.pays for row in block.rows]
    left = [row for row in left if not _join(kept, row, token_budget, most)]
    kept.sort(key=lambda block: -block.size)
    return [_pick(rows, [row.row for row in block.rows]) for block in kept], _pick(rows, [row.row for row in left])


def _join(blocks: list[_Block], row: _Neighbour, token_budget: int, most: int) -> bool:
    """Add a row to the first tree that has room for it and still pays; tell whether there is one."""
    for block in blocks:
        fits = block.size + block.cost(row) <= token_budget and len(block.rows) < most
        if fits and block.pays_with(row):
            block.add(row)
            return True
    return False


def _prompts(batch: Rows, rows: Tensor) -> Iterator[_Block]:
    """Give the rows of each prompt, in the order in which they share most."""
    lengths = batch.attention_mask[rows].sum(-1)
    order, shared = prefix_order(batch.input_ids[rows], lengths)
    columns = (order, lengths[order], shared, batch.prompt_lengths[rows][order])
    block = _Block()
    for number, (row, length, common, prompt) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if common < prompt and block.rows:
            yield block
            block = _Block()
        block.add(_Neighbour(number, row, length, length - common))
    if block.rows:
        yield block


def _pick(rows: Tensor, places: list[int]) -> Tensor:
    return rows[torch.tensor(places, dtype=torch.int64)]

"""Rows of tokens as one tree, in which a prefix that rows share stands once: the typed face of `refinerl-pack`.

The tokens of the tree are numbered in depth-first order. The tokens below token k are those from k + 1 to
`sub_end[k]` − 1, so this one array is the mask of attention: token q sees token k if and only if k ≤ q < sub_end[k].
A node is a longest run of tokens without a branch. `refinerl.kernels.prefixes_naive` does the same in plain Python.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from refinerl.kernels import prefixes_naive

_native: Any
try:
    from refinerl import _core as _native
except ImportError:  # a source tree whose extension was not built
    warnings.warn("refinerl._core is not built: shared prefixes are found by slow Python", RuntimeWarning, stacklevel=2)
    _native = None

Sharing = Literal["auto", "always", "never"]
"""Computation of shared prefixes: once, once where it pays, or in each row."""

GAIN = 1.1
"""Number of times the tokens of the rows must be those of the tree for the tree to pay. Like `TOKENS_PER_ROW` it comes
from trials on a CPU (docs/measurements.md)."""

TOKENS_PER_ROW = 2
"""Tokens that take as long as one more row in a tree, for which attention on a GPU gathers keys (none on a CPU)."""


@dataclass(frozen=True)
class PrefixTree:
    """R rows of at most L tokens as a tree of T tokens in M nodes; int64 tensors on the CPU."""

    ids: Tensor  # (T,) token ids in depth-first order, children by increasing id
    positions: Tensor  # (T,) depth, which is the position in every row that has the token
    parents: Tensor  # (T,) the token before; −1 for the first of a row
    sub_end: Tensor  # (T,) end of the subtree: the tokens that see token k are those from k to sub_end[k] − 1
    starts: Tensor  # (M + 1,) first token of each node, then T
    keys: Tensor  # (K,) for each node, one after the other: the tokens that its last token sees, by position
    key_starts: Tensor  # (M + 1,) the place at which each node begins in `keys`, then K
    slots: Tensor  # (R, L) the tree's token at each place of each row; −1 for padding

    def __len__(self) -> int:
        return len(self.ids)


def prefix_tree(ids: Tensor, lengths: Tensor) -> PrefixTree:
    """Make the tree of rows.

    >>> tree = prefix_tree(torch.tensor([[5, 6, 20, 21], [5, 6, 30, 0]]), torch.tensor([4, 3]))
    >>> tree.ids.tolist(), tree.sub_end.tolist()
    ([5, 6, 20, 21, 30], [5, 5, 4, 4, 5])
    >>> tree.slots.tolist()
    [[0, 1, 2, 3], [0, 1, 4, -1]]

    Args:
        ids: (R, L) int64, padded at the right.
        lengths: (R,) int64, tokens of each row.

    Raises:
        ValueError: a length is outside 0 … L, or there are not R of them.
    """
    twin = prefixes_naive if _native is None else _native
    return PrefixTree(*map(torch.from_numpy, twin.prefix_tree(*_arrays(ids, lengths))))


def prefix_order(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows so that each shares most with the one before it.

    >>> order, shared = prefix_order(torch.tensor([[5, 6, 20], [4, 9, 0], [5, 6, 7]]), torch.tensor([3, 2, 3]))
    >>> order.tolist(), shared.tolist()
    ([1, 2, 0], [0, 0, 2])

    Returns their indices, (R,), and for each in this order the number of tokens that it shares with the one before it,
    (R,). The tree of a block of neighbours has as many tokens as its first row, plus what each other row does not
    share. Arguments and errors are those of `prefix_tree`.
    """
    twin = prefixes_naive if _native is None else _native
    order, shared = twin.prefix_order(*_arrays(ids, lengths))
    return torch.from_numpy(order), torch.from_numpy(shared)


def pays(tokens: int, tree: int, rows: int) -> bool:
    """Tell by counts whether a tree is faster than rows: `tokens` of the rows, padding included if they have any.

    >>> pays(tokens=8 * 300, tree=200 + 8 * 100, rows=8)
    True
    >>> pays(tokens=8 * 2000, tree=60 + 8 * 1940, rows=8)
    False
    """
    return tokens >= GAIN * tree + TOKENS_PER_ROW * rows


def _arrays(ids: Tensor, lengths: Tensor) -> tuple[Any, Any]:
    if len(ids) != len(lengths):
        raise ValueError(f"lengths must be {len(ids)} numbers, one for each row, got {len(lengths)}")
    return ids.cpu().contiguous().numpy(), lengths.cpu().contiguous().numpy()

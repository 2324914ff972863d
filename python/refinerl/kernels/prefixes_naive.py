"""The twin of `refinerl-pack` in plain Python: a trie of dictionaries, walked depth first.

It is the contract of the native functions, the oracle of their tests, and the fallback where they are not built.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def prefix_order(ids: Integers, lengths: Integers) -> tuple[Integers, Integers]:
    """Sort rows; return their indices, and the tokens that each shares with the one before it."""
    rows = _rows(ids, lengths)
    order = sorted(range(len(rows)), key=rows.__getitem__)
    shared = [0] * len(rows)
    for i in range(1, len(rows)):
        pairs = zip(rows[order[i - 1]], rows[order[i]], strict=False)
        shared[i] = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return np.array(order, np.int64), np.array(shared, np.int64)


def prefix_tree(ids: Integers, lengths: Integers) -> tuple[Integers, ...]:
    """Make the tree of rows; return the fields of `PrefixTree`, in their order."""
    root: dict[int, Any] = {}
    places: dict[int, list[tuple[int, int]]] = {}  # of the rows at each trie node, which is known by its identity
    for r, row in enumerate(_rows(ids, lengths)):
        at = root
        for position, token in enumerate(row):
            at = at.setdefault(token, {})
            places.setdefault(id(at), []).append((r, position))
    tokens: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    sub_end: list[int] = []
    slots = np.full(ids.shape, -1, np.int64)
    waiting = [(token, node, 0, -1) for token, node in sorted(root.items(), reverse=True)]
    while waiting:
        token, node, depth, parent = waiting.pop()
        here = len(tokens)
        tokens.append(token)
        positions.append(depth)
        parents.append(parent)
        sub_end.append(here + 1)
        for place in places[id(node)]:
            slots[place] = here
        waiting += [(t, child, depth + 1, here) for t, child in sorted(node.items(), reverse=True)]
    for here in reversed(range(len(tokens))):
        if parents[here] >= 0:
            sub_end[parents[here]] = max(sub_end[parents[here]], sub_end[here])
    children = np.bincount([p for p in parents if p >= 0], minlength=len(tokens)).tolist()
    starts = [t for t, p in enumerate(parents) if p < 0 or children[p] > 1] + [len(tokens)]
    keys: list[int] = []
    key_starts = [0]
    for end in starts[1:]:
        keys += [k for k in range(end) if end - 1 < sub_end[k]]
        key_starts.append(len(keys))
    columns = (tokens, positions, parents, sub_end, starts, keys, key_starts)
    return (*(np.array(column, np.int64) for column in columns), slots)


def _rows(ids: Integers, lengths: Integers) -> list[tuple[int, ...]]:
    width = ids.shape[1]
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= width:
        raise ValueError(f"lengths must be {len(ids)} numbers from 0 to {width}, got {lengths.tolist()}")
    return [tuple(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]

"""The products that make up attention over a tree: few and large, or exact and many, whichever is less work.

A token sees its own node up to itself, and all of the nodes above. In depth-first order the tokens below a node are the
range that follows it, and all of them see all of it. So a node takes two products of ranges: its own, which is causal,
and that of the range below with its keys, which has no mask. Where nodes are short, the calls take longer than the
products: neighbours are then one product with a mask, if what that computes in vain costs less than the calls.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

from refinerl.kernels.prefixes import PrefixTree

CALL = 1.5e6
"""Floating-point operations that take as long as one more call; from trials on a CPU (docs/measurements.md)."""


class Product(NamedTuple):
    """Attention of the range `seeing` to the range `own`."""

    seeing: slice
    own: slice
    causal: bool
    bias: Tensor | None
    """(S, S) 0 or −∞, if some neighbours do not see each other."""


class Products(NamedTuple):
    """All of a tree."""

    own: list[Product]
    """Of each token with what is near; each token is in one of them."""
    above: list[Product]
    """Of tokens with nodes above them."""


def plan(tree: PrefixTree, width: int, dtype: torch.dtype) -> Products:
    """Divide attention into products, for queries of `width` elements, all heads together."""
    return _Plan(tree, width, dtype).make()


class _Plan:
    def __init__(self, tree: PrefixTree, width: int, dtype: torch.dtype) -> None:
        self._first = tree.starts.tolist()
        self._stop = tree.sub_end[tree.starts[:-1]].tolist()
        self._sub_end, self._dtype = tree.sub_end, dtype
        self._depth = tree.positions.tolist()
        self._depths = [0, *tree.positions.cumsum(0).tolist()]
        inner = (tree.sub_end[tree.starts[:-1]] > tree.starts[1:]).long()
        self._calls = [0, *(1 + inner).cumsum(0).tolist()]
        self._pair = 4 * width
        self._found = Products([], [])

    def make(self) -> Products:
        waiting = [(0, self._first[-1])]
        while waiting:
            node, stop = waiting.pop()
            chunk: int | None = None  # its first node
            while self._first[node] < stop:
                after = bisect_left(self._first, self._stop[node], node + 1)
                leaf = after == node + 1
                if chunk is not None and not self._pays(chunk, after):
                    self._add(chunk, node)
                    chunk = None
                if chunk is None and (leaf or self._pays(node, after)):
                    chunk = node
                elif chunk is None:
                    self._add(node, node + 1)
                    own = slice(self._first[node], self._first[node + 1])
                    below = slice(own.stop, self._stop[node])
                    self._found.above.append(Product(below, own, False, None))
                    waiting.append((node + 1, self._stop[node]))
                node = after
            if chunk is not None:
                self._add(chunk, node)
        return self._found

    def _pays(self, node: int, after: int) -> bool:
        """Tell whether siblings from a node on, with all below them, are faster as one product."""
        first, end = self._first[node], self._first[after]
        size = end - first
        seen = self._depths[end] - self._depths[first] - size * (self._depth[first] - 1)
        calls = self._calls[after] - self._calls[node]
        return bool(self._pair * (size * size - seen) <= CALL * (calls - 1))

    def _add(self, node: int, after: int) -> None:
        own = slice(self._first[node], self._first[after])
        bias = None
        if after > node + 1:
            tokens = torch.arange(own.start, own.stop)
            seen = (tokens <= tokens[:, None]) & (tokens[:, None] < self._sub_end[own])
            bias = torch.zeros(seen.shape, dtype=self._dtype).masked_fill(~seen, -torch.inf)
        self._found.own.append(Product(own, own, bias is None, bias))

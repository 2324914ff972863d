"""The products of attention over a tree: each pair that sees each other is in one, and few are computed in vain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refinerl.engines import products
from refinerl.engines.products import plan
from refinerl.kernels.prefixes import PrefixTree, prefix_tree

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=10)


def tree_of(rows: list[list[int]]) -> PrefixTree:
    ids = torch.tensor([[*row, *[0] * (max(map(len, rows)) - len(row))] for row in rows])
    return prefix_tree(ids, torch.tensor([len(row) for row in rows]))


@given(ROWS, st.sampled_from([0.0, 300.0, 3e3, 1e9]))
def test_each_pair_is_in_one_product(rows, call):
    before, products.CALL = products.CALL, call
    try:
        tree = tree_of(rows)
        found = plan(tree, 8, torch.float64)
    finally:
        products.CALL = before
    tokens = torch.arange(len(tree))
    counts = torch.zeros(len(tree), len(tree), dtype=torch.int64)
    for p in (*found.own, *found.above):
        size = (p.seeing.stop - p.seeing.start, p.own.stop - p.own.start)
        seen = torch.ones(size, dtype=torch.bool)
        if p.causal:
            seen = seen.tril()
        if p.bias is not None:
            seen = p.bias == 0
        counts[p.seeing, p.own] += seen
    assert counts.equal(((tokens <= tokens[:, None]) & (tokens[:, None] < tree.sub_end)).long())
    assert sum(p.own.stop - p.own.start for p in found.own) == len(tree)


@pytest.mark.parametrize(("width", "calls"), [(96, 3), (4096, 18)])
def test_a_wide_model_computes_less_in_vain(monkeypatch, width, calls):
    """A prompt of 200 tokens, and four pairs of y and ỹ of 40 that share 20."""
    monkeypatch.setattr(products, "CALL", 1.5e6)
    prompt = list(range(200))
    rows = [[*prompt, 300 + i, *range(400, 419), 500 + j, *range(600, 619)] for i in range(4) for j in range(2)]
    found = plan(tree_of(rows), width, torch.float32)
    assert len(found.own) + len(found.above) == calls

"""Rows become a tree in which shared prefixes stand once: native and naive agree, and the arrays mean what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refinerl import _core
from refinerl.kernels import prefixes, prefixes_naive
from refinerl.kernels.prefixes import pays, prefix_order, prefix_tree

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=12)


def padded(rows, spare=0, filler=1):
    """Ids and lengths of rows; padding repeats an id of the rows, so that it would be seen if it counted."""
    width = max(map(len, rows), default=0) + spare
    ids = np.array([[*row, *[filler] * (width - len(row))] for row in rows], np.int64).reshape(len(rows), width)
    return ids, np.array([len(row) for row in rows], np.int64)


@given(ROWS, st.integers(0, 2))
def test_native_and_naive_agree(rows, spare):
    arrays = padded(rows, spare)
    for name in ("prefix_order", "prefix_tree"):
        mine, theirs = (getattr(twin, name)(*arrays) for twin in (_core, prefixes_naive))
        for found, wanted in zip(mine, theirs, strict=True):
            assert found.dtype == np.int64
            assert found.shape == wanted.shape
            assert found.tolist() == wanted.tolist()


@given(ROWS)
def test_each_row_is_a_path_and_the_mask_is_its_prefix(rows):
    ids, lengths = map(torch.from_numpy, padded(rows))
    tree = prefix_tree(ids, lengths)
    assert len(tree) == len({tuple(row[: n + 1]) for row in rows for n in range(len(row))})
    for row, slots in zip(rows, tree.slots.tolist(), strict=True):
        path = slots[: len(row)]
        assert slots[len(row) :] == [-1] * (len(slots) - len(row))
        assert tree.ids[path].tolist() == row
        assert tree.positions[path].tolist() == list(range(len(row)))
        assert tree.parents[path].tolist() == [-1, *path[:-1]][: len(row)]
        for n, q in enumerate(path):
            assert [k for k in range(len(tree)) if k <= q < tree.sub_end[k]] == path[: n + 1]


@given(ROWS)
def test_nodes_are_ranges_with_the_keys_that_they_see(rows):
    tree = prefix_tree(*map(torch.from_numpy, padded(rows)))
    starts, key_starts = tree.starts.tolist(), tree.key_starts.tolist()
    assert starts[-1] == len(tree)
    for node, (first, end) in enumerate(itertools.pairwise(starts)):
        assert tree.sub_end[first:end].unique().numel() == 1
        keys = tree.keys[key_starts[node] : key_starts[node + 1]].tolist()
        assert keys == [k for k in range(end) if end - 1 < tree.sub_end[k]]
        assert keys[-(end - first) :] == list(range(first, end))


def test_neighbours_share_most():
    ids, lengths = map(torch.from_numpy, padded([[5, 6, 7], [9], [5, 6], [5, 6, 7]]))
    order, shared = prefix_order(ids, lengths)
    assert order.tolist() == [2, 0, 3, 1]
    assert shared.tolist() == [0, 2, 3, 0]


def test_the_naive_twin_serves_where_the_extension_was_not_built(monkeypatch):
    ids, lengths = map(torch.from_numpy, padded([[5, 6, 7], [5, 8]]))
    native = prefix_tree(ids, lengths)
    monkeypatch.setattr(prefixes, "_native", None)
    assert prefix_tree(ids, lengths).slots.equal(native.slots)


@pytest.mark.parametrize("twin", ["native", "naive"])
@pytest.mark.parametrize("lengths", [[1], [3, 1], [-1, 1]])
def test_lengths_that_do_not_fit_are_refused(monkeypatch, twin, lengths):
    if twin == "naive":
        monkeypatch.setattr(prefixes, "_native", None)
    ids = torch.zeros(2, 2, dtype=torch.int64)
    for function in (prefix_tree, prefix_order):
        with pytest.raises(ValueError, match="lengths must be 2 numbers"):
            function(ids, torch.tensor(lengths))


def test_a_tree_pays_for_a_shared_prompt_and_not_for_long_responses():
    assert pays(tokens=8 * (256 + 100), tree=256 + 8 * 100, rows=8)
    assert not pays(tokens=8 * (64 + 2000), tree=64 + 8 * 2000, rows=8)
    assert not pays(tokens=64 * 4, tree=64 * 3, rows=64)

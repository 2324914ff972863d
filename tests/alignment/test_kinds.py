"""Sequences of every kind side by side in one batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinerl.alignment import align

KINDS = [
    lambda ids: ids.tolist(),
    lambda ids: tuple(ids.tolist()),
    lambda ids: ids.astype(np.int32),
    lambda ids: ids,
    lambda ids: np.repeat(ids, 2)[::2],
    lambda ids: np.repeat(ids.astype(np.int32), 2)[::2],
]
"""Lists, tuples and arrays: these are copied up to 1024 ids and if strided, and else borrowed."""


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 1, 7, 1024, 1025])), max_size=12))
@settings(max_examples=60, deadline=None)
def test_sequences_of_all_kinds_may_stand_in_one_batch(drawn):
    random = np.random.default_rng(len(drawn))
    originals = [random.integers(0, 50_000, size) for _, _, size in drawn]
    refined = [np.delete(ids, slice(len(ids) // 2, len(ids) // 2 + 1)) for ids in originals]
    expected = align([ids.copy() for ids in originals], refined)
    found = align(
        [KINDS[kind](ids) for (kind, _, _), ids in zip(drawn, originals, strict=True)],
        [KINDS[kind](ids) for (_, kind, _), ids in zip(drawn, refined, strict=True)],
    )
    assert found == expected
    assert [alignment.distance for alignment in found] == [min(size, 1) for _, _, size in drawn]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [9, 2000])
def test_names_the_first_sequence_with_a_bad_id(kind, size):
    good, bad = np.arange(size), np.where(np.arange(size) == 5, -3, 1)
    for pair in ([good, good, bad, good, bad - 1], [good] * 5), ([good] * 5, [good, good, bad, good, bad - 1]):
        name = "refined" if pair[0][2] is good else "originals"
        with pytest.raises(ValueError, match=rf"{name}\[2\] must be token ids from 0 to 2\*\*31 - 1, got -3"):
            align([good, *map(kind, pair[0][1:])], [kind(ids) for ids in pair[1]])

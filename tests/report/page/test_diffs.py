"""Diffs of y and ỹ."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinerl.report.page.diffs import diffs


@pytest.mark.parametrize(
    ("y", "z", "lengths"),
    [
        ("", "", []),
        ("a", "a", [1]),
        ("a", "", [0, 1, 0]),
        ("", "b", [0, 0, 1]),
        ("a b", "c b", [0, 1, 1, 2]),
        ("a b", "a c", [2, 1, 1]),
    ],
)
def test_lengths_of_stretches(y: str, z: str, lengths: list[int]) -> None:
    assert diffs([(y, z)]) == [lengths]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text("ab é\n𝒳", max_size=12), st.text("ab é\n𝒳", max_size=12)), max_size=4))
def test_both_texts_are_rebuilt(pairs: list[tuple[str, str]]) -> None:
    for (y, z), lengths in zip(pairs, diffs(pairs), strict=True):
        i = j = 0
        for place, length in enumerate(lengths):
            if place % 3 == 0:
                assert y[i : i + length] == z[j : j + length]
            i += length if place % 3 != 2 else 0
            j += length if place % 3 != 1 else 0
        assert (i, j) == (len(y), len(z))

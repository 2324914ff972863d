"""Ids out of lists and tuples: read where CPython keeps them, or one by one, with the same results and errors."""

import gc
import subprocess
import sys
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinerl import _core
from refinerl.alignment import align, filter_refinements


class Subclass(int):
    pass


class Member(IntEnum):
    THREE = 3


EDGES = [0, 1, 255, 256, 257, 2**15, 2**29, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 1]
ids = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from(EDGES), st.integers(0, 300))
not_exact = st.one_of(
    st.sampled_from(
        [-1, -255, -(2**30), -(2**31), 2**31, 2**32, 2**32 + 1, 2**60, 2**61 + 1, 2**63, 2**64 + 1, -(2**64)]
    ),
    st.sampled_from([True, False, Subclass(7), Subclass(-7), Member.THREE, np.int64(3), np.int32(-3), np.uint8(3)]),
    st.sampled_from([None, 1.0, "1", b"1", (1,), object()]),
    st.integers(),
)


@pytest.fixture(autouse=True)
def as_from_the_start():
    yield
    _core.read_ints_directly(True)


def both_ways(function):
    """Result or error of both ways to read."""
    results = []
    for allowed in (True, False):
        _core.read_ints_directly(allowed)
        try:
            results.append(function())
        except ValueError as error:
            results.append(str(error))
    return results


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info < (3, 15) or sys.abiflags != "",
    reason="only these interpreters are known",
)
def test_ordinary_interpreters_are_read_directly():
    assert _core.read_ints_directly(True)
    assert not _core.read_ints_directly(False)


@given(st.lists(ids), st.sampled_from([list, tuple]))
def test_reads_what_arrays_say(values, kind):
    for allowed in (True, False):
        _core.read_ints_directly(allowed)
        (found,) = align([kind(values)], [np.array(values, np.int64)])
        assert found.distance == 0
        assert found.original_length == len(values)


@given(st.lists(ids, max_size=20), not_exact, st.lists(ids, max_size=3), st.sampled_from([list, tuple]))
def test_both_ways_agree_on_whatever_stands_in_a_list(before, item, after, kind):
    mixed, plain = kind([*before, item, *after]), kind(before)
    direct, one_by_one = both_ways(lambda: align([mixed, plain], [plain, mixed]))
    assert direct == one_by_one
    direct, one_by_one = both_ways(lambda: filter_refinements([0.0], [1.0], ["a"], [mixed]).counts)
    assert direct == one_by_one


@pytest.mark.parametrize("power", range(70))
def test_both_ways_agree_around_powers_of_two(power):
    for value in (2**power - 1, 2**power, 2**power + 1):
        for signed in (value, -value):
            direct, one_by_one = both_ways(lambda item=signed: align([[item]], [[5]]))
            assert direct == one_by_one
            if 0 <= signed < 2**31:
                assert direct[0].runs == ([(0, 0, 1)] if signed == 5 else [])
            else:
                assert direct == f"originals[0] must be token ids from 0 to 2**31 - 1, got {signed}"


def test_lists_that_grew_and_shrank_are_read_to_their_length():
    grown: list[int] = []
    for value in range(1000, 2000):
        grown.append(value)
        assert align([grown], [np.array(grown)])[0].distance == 0
    del grown[3:]
    assert align([grown], [np.array([1000, 1001, 1002])])[0].distance == 0
    grown.clear()
    assert align([grown], [[]])[0].distance == 0


def test_reading_counts_no_references():
    fresh = [10**6 + i for i in range(100)]
    before = [sys.getrefcount(item) for item in fresh]
    for _ in range(50):
        align([fresh, tuple(fresh)], [fresh[:50], fresh])
        with pytest.raises(ValueError, match="got None"):
            align([fresh], [[*fresh, None]])
    gc.collect()
    assert [sys.getrefcount(item) for item in fresh] == before


PROBE = """
import sys
import refinerl.alignment
from refinerl import _core
{disguise}
assert _core.read_ints_directly(True) is {expected}
found = refinerl.alignment.align([[1, 2, 3]], [[1, 3]])[0]
assert found.runs == [(0, 0, 1), (2, 1, 1)], found.runs
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disguise", "expected"),
    [
        ("", True),
        ("sys.abiflags = 'd'", False),
        ("sys.abiflags = 't'", False),
        ("del sys.abiflags", False),
        ("sys.gettotalrefcount = sys.getobjects = len", False),
        ("sys.implementation.name = 'other'", False),
        ("sys.int_info = type('Info', (), {'bits_per_digit': 15, 'sizeof_digit': 2})", False),
    ],
)
def test_unknown_interpreters_are_read_one_by_one(disguise, expected):
    if not _core.read_ints_directly(True):
        pytest.skip("this interpreter is none of the known")
    program = PROBE.format(disguise=disguise, expected=expected)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

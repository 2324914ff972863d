import pickle
import threading
import time
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from refinerl import _core
from refinerl.alignment import align, charge
from refinerl.alignment import face as alignment
from refinerl.alignment import naive as alignment_naive


@pytest.fixture(params=["native", "naive"])
def either_twin(request, monkeypatch):
    if request.param == "naive":  # as where the extension was not built
        monkeypatch.setattr(alignment, "_native", None)


@st.composite
def pairs(draw, longest=300):
    """A random y and an edited copy of it: alphabets from 2 to 100k, repeats, every kind of edit."""
    alphabet = draw(st.sampled_from([2, 3, 5, 20, 1000, 100_000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    original = random.integers(0, alphabet, draw(st.integers(0, longest)))
    rate = draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 1.0]))
    refined: list[int] = []
    position = 0
    while position < len(original):
        if random.random() < rate / 3:
            span = int(random.integers(1, 6))
            edit = random.integers(0, 4)
            if edit != 0:  # insertion or substitution, or a repeat of what stands there
                fresh = random.integers(0, alphabet, span)
                refined += (original[position : position + span] if edit == 3 else fresh).tolist()
            if edit != 1 and edit != 3:
                position += span
        else:
            refined.append(int(original[position]))
            position += 1
    return original, np.array(refined, np.int64)


def apply(alignment, original, refined):
    """ỹ from y: the kept tokens of y, and the inserted ones of ỹ in between."""
    result = np.full(len(refined), -1)
    result[alignment.refined_kept] = original[alignment.original_kept]
    result[~alignment.refined_kept] = refined[~alignment.refined_kept]
    return result


def assert_same(native, naive):
    assert native.runs == naive.runs
    assert (native.prefix, native.distance, native.copy_ratio) == (naive.prefix, naive.distance, naive.copy_ratio)
    for name in ("original_kept", "refined_kept", "refined_to_original"):
        np.testing.assert_array_equal(getattr(native, name), getattr(naive, name), strict=True)


@given(pairs())
@settings(max_examples=400, deadline=None)
def test_is_the_minimal_alignment_that_the_naive_twin_names(pair):
    original, refined = pair
    (alignment,) = align([original], [refined])
    assert_same(alignment, alignment_naive.align([original], [refined])[0])
    assert alignment.distance == Indel.distance(original.tolist(), refined.tolist())
    assert alignment.distance == (~alignment.original_kept).sum() + (~alignment.refined_kept).sum()
    np.testing.assert_array_equal(apply(alignment, original, refined), refined)


@given(st.lists(pairs(60), max_size=8))
@settings(max_examples=50, deadline=None)
def test_threads_and_widths_change_nothing(batch):
    # once on the calling thread, and often enough to be worth other threads
    for times in (1, 200):
        originals, refined = [a for a, _ in batch] * times, [b for _, b in batch] * times
        alone = align(originals, refined, threads=1)
        assert alone == align(originals, refined)
        assert alone == align(originals, refined, threads=2)
        assert alone == align([a.astype(np.int32) for a in originals], [b.astype(np.int32) for b in refined])
        assert alone == align([a.astype(np.int32) for a in originals], refined)


@pytest.mark.usefixtures("either_twin")
def test_a_worked_example():
    # y  = 1 2 3 4 5 6 7      deleted: 3, 6
    # ỹ  = 1 2 9 9 4 5 7 8    inserted: 9 9 (for 3), 8 (appended); 7 stands after the pure deletion of 6
    (alignment,) = align([[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 9, 9, 4, 5, 7, 8]])
    assert alignment.prefix == 2
    assert alignment.distance == 5
    assert alignment.original_kept.tolist() == [True, True, False, True, True, False, True]
    assert alignment.refined_kept.tolist() == [True, True, False, False, True, True, True, False]
    assert alignment.refined_to_original.tolist() == [0, 1, 2, 2, 3, 4, 5, 6]
    assert alignment.copy_ratio == 5 / 8
    charges = charge(np.array([[1.0, 2, 4, 8, 16, 32, 64, 128]]), [alignment], [7])
    assert charges.tolist() == [[1.0, 2, 12, 16, 32, 64, 128]]


@pytest.mark.usefixtures("either_twin")
def test_a_pure_insertion_charges_the_token_before_which_it_stands():
    (alignment,) = align([[1, 2, 3]], [[1, 9, 2, 3]])
    assert alignment.refined_to_original.tolist() == [0, 1, 1, 2]


@pytest.mark.usefixtures("either_twin")
def test_among_equally_short_alignments_the_prefix_wins_then_the_suffix_then_the_earliest():
    # ỹ = 5 5 of y = 5 5 5: prefix; 1 2 | 2 1 between different ends: the pair whose place in ỹ is earlier
    (prefix, suffix, earliest) = align([[5, 5, 5], [7, 5, 5, 5], [8, 1, 2, 9]], [[5, 5], [6, 5, 5], [7, 2, 1, 6]])
    assert prefix.runs == [(0, 0, 2)]
    assert suffix.runs == [(2, 1, 2)]
    assert earliest.runs == [(2, 1, 1)]


@pytest.mark.parametrize(
    ("original", "refined", "ratio", "targets"),
    [([], [], 1.0, []), ([], [4, 5], 0.0, [-1, -1]), ([4, 5], [], 0.0, []), ([4], [4], 1.0, [0])],
)
@pytest.mark.usefixtures("either_twin")
def test_empty_sequences_are_valid(original, refined, ratio, targets):
    (found,) = align([original], [refined])
    assert found.copy_ratio == ratio
    assert found.refined_to_original.tolist() == targets
    assert found.distance == (0 if original == refined else len(original) + len(refined))


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        deque,
        lambda ids: list(np.array(ids)),
        lambda ids: np.array(ids, np.int32),
        lambda ids: np.array(ids, np.uint8),
        lambda ids: np.array(ids, np.uint64),
        lambda ids: np.array(ids, ">i8"),
        lambda ids: np.repeat(np.array(ids, np.int64), 2)[::2],
        lambda ids: np.repeat(np.array(ids, np.int32), 3)[::3],
        lambda ids: np.array(ids[::-1])[::-1],
        torch.tensor,
        lambda ids: torch.tensor(ids, dtype=torch.int32),
        lambda ids: torch.tensor([ids, ids]).T.contiguous().T[0],
    ],
)
@pytest.mark.usefixtures("either_twin")
def test_takes_sequences_of_any_integer_kind(convert):
    (alignment,) = align([convert([1, 2, 3, 4])], [convert([1, 3, 4, 5])])
    assert alignment.runs == [(0, 0, 1), (2, 1, 2)]


@pytest.mark.parametrize(
    ("originals", "message"),
    [
        (None, "originals must be a sequence, got None"),
        (np.array(3), r"originals must be a sequence, got array\(3\)"),
        ([[1], [2]], "refined must be as many as originals"),
        ([None], r"originals\[0\] must be a sequence of token ids, got None"),
        (["text"], r"originals\[0\] must be a sequence of token ids, got 'text'"),
        ([[1, -2]], r"originals\[0\] must be token ids from 0 to 2\*\*31 - 1, got -2"),
        ([np.array([-7], np.int32)], "from 0 to .* got -7"),
        ([[2**31]], "from 0 to .* got 2147483648"),
        ([[2**63]], "from 0 to .* got 9223372036854775808"),
        ([[2**70]], r"originals\[0\] must be token ids from 0 to 2\*\*31 - 1, got 1180591620717411303424"),
        ([[1.0]], r"originals\[0\] must be token ids from 0 to 2\*\*31 - 1, got 1.0"),
        ([(1, "1")], "must be token ids from 0 to .* got 1"),
        ([[1, None]], "must be token ids from 0 to .* got None"),
        ([[[1, 2], [3]]], r"must be token ids from 0 to .* got \[1, 2\]"),
        ([deque([1.0])], r"must be token ids from 0 to .* got 1.0"),
        ([np.array([1.0])], "must be one-dimensional integers, got float64"),
        ([np.array([True])], "must be one-dimensional integers, got bool"),
        ([np.zeros((2, 2), int)], r"originals\[0\] must be one-dimensional integers, got int64 of shape \(2, 2\)"),
        ([np.array(3)], r"must be one-dimensional integers, got int64 of shape \(\)"),
        ([torch.tensor([1.0])], "must be one-dimensional integers, got float32"),
        (
            [torch.empty(2, dtype=torch.int64, device="meta")],
            r"originals\[0\] must be on the CPU, got a tensor on meta",
        ),
    ],
)
@pytest.mark.usefixtures("either_twin")
def test_refuses_what_is_not_token_ids(originals, message):
    with pytest.raises(ValueError, match=message):
        align(originals, [[1]])


def test_refuses_no_threads():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        align([[1]], [[1]], threads=0)


def test_survives_pickling_and_knows_its_equal():
    (alignment, other) = align([[1, 2, 3], [1, 2]], [[1, 9, 3], [1, 2]])
    assert pickle.loads(pickle.dumps(alignment)) == alignment
    assert alignment != other
    assert len({alignment, pickle.loads(pickle.dumps(alignment)), other}) == 2
    with pytest.raises(ValueError, match="runs must be in order"):
        _core.Alignment.from_runs(3, 3, [(0, 0, 4)])


def test_leaves_other_threads_running():
    random = np.random.default_rng(0)
    batch = [random.integers(0, 9, 8000) for _ in range(64)]
    spans = []

    def work():
        begin = time.perf_counter()
        align(batch[:32], batch[32:], threads=1)
        spans.append(time.perf_counter() - begin)

    worker = threading.Thread(target=work)
    worker.start()
    longest, last = 0.0, time.perf_counter()
    while not spans:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    worker.join()
    assert longest < spans[0] / 2  # with the GIL held, this loop would stand still for all of it


@given(st.lists(pairs(80), max_size=6), st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_charges_keep_the_sum(batch, seed, dtype):
    originals, refined = [a for a, _ in batch], [b for _, b in batch]
    alignments, lengths = align(originals, refined), [len(a) for a in originals]
    width = max(map(len, refined), default=0)
    costs = np.random.default_rng(seed).exponential(2, (len(batch), width)).astype(dtype)
    charges = charge(costs, alignments, lengths)
    naive = alignment_naive.charge(costs.astype(np.float64), alignment_naive.align(originals, refined), lengths)
    np.testing.assert_allclose(charges, naive, rtol=1e-12)
    assert charges.shape == (len(batch), max(lengths, default=0))
    for row, own, original, target in zip(charges, costs, originals, refined, strict=True):
        expected = own[: len(target)].sum(dtype=np.float64) if len(original) else 0.0
        np.testing.assert_allclose(row.sum(), expected, rtol=1e-6)
        assert not row[len(original) :].any()


@pytest.mark.usefixtures("either_twin")
def test_charges_take_tensors_and_views():
    alignments = align([[1, 2], [3]], [[1, 2, 4], [3]])
    costs = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    expected = [[1.0, 5.0], [4.0, 0.0]]
    assert charge(costs, alignments, [2, 1]).tolist() == expected
    assert charge(costs.T.contiguous().T, alignments, torch.tensor([2, 1])).tolist() == expected
    assert charge(costs.bfloat16(), alignments, [2, 1]).tolist() == expected
    assert charge(np.zeros((0, 5)), [], []).shape == (0, 0)


@pytest.mark.parametrize(
    ("costs", "lengths", "message"),
    [
        (np.zeros((2, 3)), [2], "costs, alignments and lengths must be equally many, got 2, 1 and 1"),
        (np.zeros((1, 3)), [2, 2], "must be equally many"),
        (np.zeros((1, 3)), None, "lengths must be a sequence, got None"),
        (np.zeros((1, 3)), [3], r"lengths\[0\] must be y's length, 2, got 3"),
        (np.zeros((1, 2)), [2], r"costs\[0\] must cover ỹ's 3 tokens, got 2"),
        (np.zeros(3), [2], r"costs must be floating and of shape \(n, T\), got float64 \(3,\)"),
        (np.zeros((1, 3), np.int64), [2], "costs must be floating"),
        (None, [2], "costs must be floating"),
        (torch.zeros(1, 3, requires_grad=True), [2], "costs must be detached"),
        (torch.zeros(1, 3, device="meta"), [2], "costs must be on the CPU, got a tensor on meta"),
    ],
)
@pytest.mark.usefixtures("either_twin")
def test_refuses_costs_that_do_not_fit(costs, lengths, message):
    with pytest.raises(ValueError, match=message):
        charge(costs, align([[1, 2]], [[1, 2, 4]]), lengths)

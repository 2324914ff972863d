"""Alignment against its rivals on the same pairs, in pairs per second and as ratios.

    pytest benches/bench_alignment.py -o python_files='bench_*.py' --benchmark-only --benchmark-disable-gc -s

y is random token ids below 50k; ỹ is y with a share of its tokens edited in spans of mean length 3, by insertions,
deletions and substitutions in equal parts. The rivals get lists of ints, one pair per call as their interfaces require,
and `Indel.editops` gets strings, whose making is timed too. Ours gets the same 16 pairs in one call, as the same lists
or as int32 arrays. Lists are `shared` if ỹ holds the same int objects as y, as an edited list does, and `distinct` if
every int is its own object, as tokenizers make them. All contestants run one after the other for the same time, so that
a processor that changes its speed favours none. Batches have 256 pairs, as in training, on one thread and on all.
"""

import difflib
import os
import time

import cydifflib
import numpy as np
import pytest
from rapidfuzz.distance import Indel, LCSseq

from refinerl.alignment import align

LENGTHS = (256, 1024, 4096)
PERCENTS = (0, 2, 10, 50)
PAIRS = 16
SECONDS = 0.3


def edited(random, original, rate):
    refined, x = [], 0
    while x < len(original):
        if random.random() >= rate / 3:
            refined.append(original[x])
            x += 1
            continue
        span, kind = int(random.geometric(1 / 3)), random.integers(3)
        if kind != 1:
            refined += random.integers(0, 50_000, span).tolist()
        if kind != 0:
            x += span
    return refined


def pairs(length, percent):
    random = np.random.default_rng(length + percent)
    originals = [random.integers(0, 50_000, length).tolist() for _ in range(PAIRS)]
    return originals, [edited(random, ids, percent / 100) for ids in originals]


def blocks(matcher, originals, refined):
    for a, b in zip(originals, refined, strict=True):
        matcher(None, a, b, autojunk=False).get_matching_blocks()


def lcs_opcodes(originals, refined):
    for a, b in zip(originals, refined, strict=True):
        LCSseq.opcodes(a, b)


def indel_editops(originals, refined):
    for a, b in zip(originals, refined, strict=True):
        Indel.editops("".join(map(chr, a)), "".join(map(chr, b)))


def ours(originals, refined):
    align(originals, refined, threads=1)


RIVALS = {
    "difflib": lambda a, b: blocks(difflib.SequenceMatcher, a, b),
    "cydifflib": lambda a, b: blocks(cydifflib.SequenceMatcher, a, b),
    "Indel.editops": indel_editops,
}
"""Rivals that run on shared lists only, because they do not compare objects."""
CASES = {
    **{name: (rival, "shared") for name, rival in RIVALS.items()},
    **{f"LCSseq.opcodes, {kind}": (lcs_opcodes, kind) for kind in ("shared", "distinct")},
    **{f"ours, {kind}": (ours, kind) for kind in ("shared", "distinct", "arrays")},
}
KINDS = {
    "shared": lambda originals, refined: (originals, refined),
    "distinct": lambda *sides: [[np.array(ids, np.int64).tolist() for ids in side] for side in sides],
    "arrays": lambda *sides: [[np.array(ids, np.int32) for ids in side] for side in sides],
}


@pytest.fixture(scope="module")
def rates(request):
    found = {}
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n\npairs per second (best round) on one thread")
        for (length, percent), row in found.items():
            shown = " · ".join(f"{name} {rate:.0f}" for name, rate in row.items())
            print(f"{length:5} tokens, {percent:2} % edited: {shown}\n{ratios(row)}")


def ratios(row):
    """Print the ratio of ours to each rival on the same input."""
    shown = [
        f"×{row[name] / row[rival]:.1f} over {rival}"
        for name, rival in [
            *((f"ours, {kind}", f"LCSseq.opcodes, {kind}") for kind in ("shared", "distinct")),
            ("ours, arrays", "LCSseq.opcodes, distinct"),
            ("ours, shared", "Indel.editops"),
        ]
        if name in row and rival in row
    ]
    return " " * 26 + " · ".join(shown)


def measure(benchmark, function, *arguments):
    """Return the seconds of the best of the rounds that fit into `SECONDS`, at least three."""
    begin = time.perf_counter()
    function(*arguments)
    rounds = max(3, int(SECONDS / (time.perf_counter() - begin)))
    benchmark.pedantic(function, arguments, rounds=rounds)
    return benchmark.stats.stats.min


# The last of these varies fastest.
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("length", LENGTHS)
def test_alignment(benchmark, rates, name, length, percent):
    function, kind = CASES[name]
    benchmark.group = f"{length} tokens, {percent} % edited"
    seconds = measure(benchmark, function, *KINDS[kind](*pairs(length, percent)))
    rates.setdefault((length, percent), {})[name] = PAIRS / seconds


@pytest.fixture(scope="module")
def thread_rates(request):
    found = {}
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\npairs per second (best round) from arrays on one thread and on all {os.cpu_count()}")
        for (count, length, percent), row in found.items():
            shown = f"{row.get(1, 0):.0f} and {row.get(None, 0):.0f}, ×{row.get(None, 0) / row.get(1, 1):.2f}"
            print(f"{count:3} pairs of {length:4} tokens, {percent:2} % edited: {shown}")


@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("count", [PAIRS, 256])
def test_threads(benchmark, thread_rates, count, length, percent, threads):
    batch = [side * (count // PAIRS) for side in KINDS["arrays"](*pairs(length, percent))]
    benchmark.group = f"{count} pairs of {length} tokens, {percent} % edited"
    seconds = measure(benchmark, lambda *batch: align(*batch, threads=threads), *batch)
    thread_rates.setdefault((count, length, percent), {})[threads] = count / seconds

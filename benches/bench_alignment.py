"""Alignment against its rivals on the same pairs, in pairs per second and as ratios.

    pytest benches/bench_alignment.py -o python_files='bench_*.py' --benchmark-only --benchmark-disable-gc -s

y is random token ids below 50k, `uniform` or `zipf`: the id r has the share log((r + 2) / (r + 1)) / log(50000), and a
few ids recur all the time, as in text. ỹ is y with a share of its tokens edited in spans of mean length 3, by
insertions, deletions and substitutions in equal parts. `real` pairs were written in runs of `smollm` and of the
miniature (refinements.jsonl, in the ids of SmolLM2's tokenizer): as they are, and joined until y has that many tokens.

The rivals get lists of ints, one pair per call as their interfaces require, and `Indel.editops` gets strings, whose
making is timed too. Ours gets the same pairs in one call, as the same lists or as int32 arrays. Lists are `shared` if ỹ
holds the same int objects as y, as an edited list does, and `distinct` if every int is its own object, as tokenizers
make them. All contestants run one after the other for the same time, so that a processor that changes its speed favours
none. Batches have 256 pairs, as in training, on one thread and on all.
"""

import difflib
import json
import os
import time
from functools import cache
from pathlib import Path

import cydifflib
import numpy as np
import pytest
from rapidfuzz.distance import Indel, LCSseq

from refinerl.alignment import align

LENGTHS = (256, 1024, 4096)
PERCENTS = (0, 2, 10, 50)
PAIRS = 16
SECONDS = 0.3
GOAL = 2.5
"""Ours from arrays over `LCSseq.opcodes` from lists of distinct ints, on one thread."""
TEXTS = {
    "uniform": lambda random, count: random.integers(0, 50_000, count).tolist(),
    "zipf": lambda random, count: (50_000 ** random.random(count) - 1).astype(int).tolist(),
}
SETS = [
    *((text, length, percent) for text in TEXTS for length in LENGTHS for percent in PERCENTS),
    *(("real", length, None) for length in (None, *LENGTHS)),
]


def edited(random, original, rate, tokens):
    refined, x = [], 0
    while x < len(original):
        if random.random() >= rate / 3:
            refined.append(original[x])
            x += 1
            continue
        span, kind = int(random.geometric(1 / 3)), random.integers(3)
        if kind != 1:
            refined += tokens(random, span)
        if kind != 0:
            x += span
    return refined


def written(length):
    """The pairs of the runs, as they are or joined in random order until y has at least `length` tokens."""
    rows = (Path(__file__).parent / "refinements.jsonl").read_text().splitlines()
    found = [(row["y"], row["refined"]) for row in map(json.loads, rows)]
    if length is None:
        return [a for a, _ in found], [b for _, b in found]
    random = np.random.default_rng(length)
    originals, refined = [], []
    for _ in range(PAIRS):
        a, b = [], []
        while len(a) < length:
            more, changed = found[random.integers(len(found))]
            a, b = a + more, b + changed
        originals.append(a)
        refined.append(b)
    return originals, refined


@cache
def pairs(text, length, percent):
    if text == "real":
        return written(length)
    random = np.random.default_rng(length + percent)
    originals = [TEXTS[text](random, length) for _ in range(PAIRS)]
    return originals, [edited(random, ids, percent / 100, TEXTS[text]) for ids in originals]


def title(text, length, percent):
    size = "as written" if length is None else f"{length} tokens"
    return f"{text}, {size}" + ("" if percent is None else f", {percent} % edited")


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
        for case, row in found.items():
            shown = " · ".join(f"{name} {rate:.0f}" for name, rate in row.items())
            print(f"{title(*case)}: {shown}\n{ratios(row)}")


def ratios(row):
    """Print the ratio of ours to each rival on the same input."""
    shown = [
        f"×{row[name] / row[rival]:.1f} over {rival}" + missed
        for name, rival, goal in [
            ("ours, shared", "LCSseq.opcodes, shared", None),
            ("ours, distinct", "LCSseq.opcodes, distinct", None),
            ("ours, arrays", "LCSseq.opcodes, distinct", GOAL),
            ("ours, shared", "Indel.editops", None),
        ]
        if name in row and rival in row
        for missed in ["" if goal is None or row[name] >= goal * row[rival] else f" (goal: ×{goal})"]
    ]
    return " " * 8 + " · ".join(shown)


def measure(benchmark, function, *arguments):
    """Return the seconds of the best of the rounds that fit into `SECONDS`, at least three."""
    begin = time.perf_counter()
    function(*arguments)
    rounds = max(3, int(SECONDS / (time.perf_counter() - begin)))
    benchmark.pedantic(function, arguments, rounds=rounds)
    return benchmark.stats.stats.min


# The last of these varies fastest.
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("case", SETS, ids=lambda case: title(*case))
def test_alignment(benchmark, rates, name, case):
    function, kind = CASES[name]
    benchmark.group = title(*case)
    originals, refined = KINDS[kind](*pairs(*case))
    seconds = measure(benchmark, function, originals, refined)
    rates.setdefault(case, {})[name] = len(originals) / seconds


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
    batch = [side * (count // PAIRS) for side in KINDS["arrays"](*pairs("uniform", length, percent))]
    benchmark.group = f"{count} pairs of {length} tokens, {percent} % edited"
    seconds = measure(benchmark, lambda *batch: align(*batch, threads=threads), *batch)
    thread_rates.setdefault((count, length, percent), {})[threads] = count / seconds

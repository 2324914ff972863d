"""The tree of rows that share prefixes: the native functions against their twin in Python, in one run.

    pytest benches/bench_prefixes.py -o python_files='bench_*.py' -s

A micro-batch has rows of y and ỹ to a few prompts: eight responses each, every second one with a refinement that
begins as it does. Ids are random. Both get the same arrays, in turns, and the time of each is that of its best round.
"""

import time

import numpy as np
import pytest

from refinerl import _core
from refinerl.kernels import prefixes_naive

SHAPES = {"16 prompts, short": (16, 60, 40), "4 prompts": (4, 256, 200), "1 prompt, long": (1, 2048, 1024)}
"""Prompts, their tokens, and those of a response."""
ROUNDS = 5
GOAL = 10
"""Ours over the twin."""


def rows(prompts, prompt, response):
    random = np.random.default_rng(0)
    found = []
    for _ in range(prompts):
        question = random.integers(0, 50_000, prompt)
        for sample in range(8):
            y = random.integers(0, 50_000, random.integers(response // 2, response + 1))
            found.append([*question, *y])
            if sample % 2:
                found.append([*question, *y[: len(y) // 2], *random.integers(0, 50_000, len(y) // 2)])
    width = max(map(len, found))
    ids = np.array([[*row, *[0] * (width - len(row))] for row in found], np.int64)
    return ids, np.array(list(map(len, found)), np.int64)


def seconds(work, arrays):
    begin = time.perf_counter()
    work(*arrays)
    return time.perf_counter() - begin


@pytest.mark.parametrize("shape", SHAPES)
def test_prefixes(shape, capsys):
    arrays = rows(*SHAPES[shape])
    for name in ("prefix_order", "prefix_tree"):
        ours, theirs = getattr(_core, name), getattr(prefixes_naive, name)
        rounds = [(seconds(ours, arrays), seconds(theirs, arrays)) for _ in range(ROUNDS)]
        best, rival = (min(column) for column in zip(*rounds, strict=True))
        with capsys.disabled():
            print(
                f"\n{shape}, {int(arrays[1].sum())} tokens, {name}: {1e3 * best:.2f} ms, in Python {1e3 * rival:.1f}, "
                f"×{rival / best:.0f}" + ("" if rival >= GOAL * best else f" (goal: ×{GOAL})")
            )

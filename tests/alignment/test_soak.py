"""Many random pairs against rapidfuzz: REFINERL_ALIGNMENT_SOAK sets how many."""

import os

import numpy as np
import pytest
from rapidfuzz.distance import Indel

from refinerl.alignment import align

PAIRS = int(os.environ.get("REFINERL_ALIGNMENT_SOAK", "20000"))


def edited(random, original, alphabet):
    """A copy with up to 24 deletions, insertions and substitutions of up to five tokens each."""
    refined = original.tolist()
    for _ in range(random.integers(0, 25)):
        at = random.integers(0, len(refined) + 1)
        refined[at : at + random.integers(0, 6)] = random.integers(0, alphabet, random.integers(0, 6)).tolist()
    return refined


@pytest.mark.slow
def test_distances_of_many_pairs_equal_those_of_rapidfuzz():
    random = np.random.default_rng(4)
    done = 0
    while done < PAIRS:
        originals, refined = [], []
        for _ in range(min(5000, PAIRS - done)):
            alphabet = int(10 ** random.uniform(0.3, 5))
            original = random.integers(0, alphabet, random.integers(0, 300))
            other = random.integers(0, alphabet, random.integers(0, 300)).tolist()
            originals.append(original.tolist())
            refined.append(other if random.random() < 0.1 else edited(random, original, alphabet))
        for a, b, found in zip(originals, refined, align(originals, refined), strict=True):
            kept = [token for token, keep in zip(a, found.original_kept, strict=True) if keep]
            assert kept == [token for token, keep in zip(b, found.refined_kept, strict=True) if keep]
            assert found.distance == Indel.distance(a, b) == len(a) + len(b) - 2 * len(kept)
        done += len(originals)

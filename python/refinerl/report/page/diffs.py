"""Diffs of y and ỹ: of their words, as lengths, and of their tokens, as the run aligned them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from refinerl.alignment import align
from refinerl.report.rows import RefinementRow, RolloutRow
from refinerl.report.summary import runs

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def diffs(pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Compare texts word by word, with the fewest insertions and deletions.

    A diff is the lengths in characters of its stretches, three by three: kept, deleted, inserted, kept, ….

    >>> diffs([("The cat sat.", "The dog sat!")])
    [[4, 3, 3, 4, 1, 1]]
    """
    words: dict[str, int] = defaultdict(lambda: len(words))
    cut = [[_WORDS.findall(text) for text in pair] for pair in pairs]
    originals, refined = ([[words[word] for word in pair[i]] for pair in cut] for i in (0, 1))
    return [
        _lengths(y, z, [*runs(found.original_kept, found.refined_kept)])
        for (y, z), found in zip(cut, align(originals, refined), strict=True)
    ]


def _lengths(y: Sequence[str], z: Sequence[str], stretches: Sequence[tuple[bool, int, int]]) -> list[int]:
    found: list[int] = []
    i = j = 0
    for kept, i_end, j_end in stretches:
        deleted, inserted = (sum(map(len, words)) for words in (y[i:i_end], z[j:j_end]))
        if kept:
            found.append(deleted)
        else:
            found += [deleted, inserted] if len(found) % 3 else [0, deleted, inserted]
        i, j = i_end, j_end
    return found


def kept_tokens(pairs: Sequence[tuple[RolloutRow, RefinementRow]]) -> list[str]:
    """Return for each ỹ a text with a character for each of its tokens: 1 if it is kept from y, else 0."""
    found = align(
        [row.completion.token_ids for row, _ in pairs], [refined.completion.token_ids for _, refined in pairs]
    )
    return ["".join("01"[kept] for kept in alignment.refined_kept.tolist()) for alignment in found]

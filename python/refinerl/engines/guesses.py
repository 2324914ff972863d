"""Guesses of a completion's next tokens, taken from a draft that it probably copies.

A refinement copies most of y, so y is its draft. While the completion follows the draft, the guess is the draft's
continuation. Once it departs, the guess continues at the place of the draft that follows the completion's last tokens;
if there are several, at the one nearest to where completion and draft were aligned. A completion that repeats itself is
its own draft. An engine verifies all guessed tokens in one pass and keeps those that it would have written itself, so a
wrong guess costs time and changes nothing.

All choices depend on tokens and counts, never on a clock: a run that is repeated makes the same guesses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

MATCH = 4
"""Longest n-gram that is searched for."""
KNOWN = 8
"""Matching tokens before a guess beyond which more of them say nothing new."""
FORGETTING = 0.98
"""Weight of what was counted before the last pass."""
PRIOR = 4.0
"""Weight of the prior chances, in guesses."""
LOGITS = 2**26
"""Logits that an engine computes at once to verify guesses, unless one row of logits per completion is more."""

Source = Literal["start", "draft", "repeat"]
_CHANCES = {
    "start": (0.6, 0.8, 0.85, 0.9, 0.9, 0.95, 0.95, 0.95, 0.97),
    "draft": (0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.9, 0.9, 0.97),
    "repeat": (0.3, 0.3, 0.3, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
}


@dataclass(frozen=True)
class Guess:
    """Tokens that may come next."""

    tokens: tuple[int, ...] = ()
    source: Source = "draft"
    """`start`: the draft, for an empty completion; `repeat`: the completion itself."""
    match: int = 0
    """Number of tokens before the guess that completion and source have in common, at most `KNOWN`."""


class Draft:
    """A text that a completion probably copies, with an index of its n-grams.

    Args:
        tokens: token ids; those outside the vocabulary are never guessed, and no match contains them.
        vocabulary: number of token ids of the model that writes the completion.
    """

    def __init__(self, tokens: Sequence[int], vocabulary: int) -> None:
        self.tokens = tuple(token if 0 <= token < vocabulary else -1 for token in tokens)

    @cached_property
    def _ends(self) -> dict[tuple[int, ...], list[int]]:
        """The ends of each n-gram; a completion that only follows the draft needs none."""
        found: dict[tuple[int, ...], list[int]] = {}
        for end in range(1, len(self.tokens) + 1):
            for n in range(1, min(MATCH, end) + 1):
                found.setdefault(self.tokens[end - n : end], []).append(end)
        return found

    def nearest(self, ngram: tuple[int, ...], place: int) -> int | None:
        """Return the end of the occurrence of an n-gram that is nearest to a place, or None if there is none.

        >>> Draft((5, 6, 7, 5, 6), 10).nearest((5, 6), 4)
        5
        """
        ends = self._ends.get(ngram, ())
        if not ends:
            return None
        after = bisect_left(ends, place)
        return min(ends[max(after - 1, 0) : after + 1], key=lambda end: abs(end - place))


class Reader:
    """A reader of a draft that follows one completion."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._place = 0  # of the draft's token that corresponds to the completion's next one
        self._read = 0
        self._repeats: dict[tuple[int, ...], int] = {}
        self._indexed = MATCH

    def guess(self, written: Sequence[int], most: int) -> Guess:
        """Guess at most `most` tokens that come after those written so far. `written` only grows between calls.

        >>> Reader(Draft((5, 6, 7, 8), 10)).guess((5, 6), 8).tokens
        (7, 8)
        """
        match = self._follow(written)
        found = self._draft.tokens[self._place : self._place + max(most, 0)]
        if -1 in found:
            found = found[: found.index(-1)]
        repeat = self._repeated(written, most) if match < MATCH else None
        if repeat is not None and (not found or repeat.match > match):
            return repeat
        return Guess(found, "draft" if written else "start", match)

    def _follow(self, written: Sequence[int]) -> int:
        """Move the place behind the completion's last tokens; return how many tokens before it match."""
        tokens = self._draft.tokens
        # Without a match, each written token is taken for one of the draft's that was replaced.
        self._place = min(self._place + len(written) - self._read, len(tokens))
        self._read = len(written)
        match = _common(tokens, self._place, written)
        if match >= 2 or not written:
            return match
        for n in range(min(MATCH, len(written)), match, -1):
            end = self._draft.nearest(tuple(written[-n:]), self._place)
            if end is not None and (n > 1 or abs(end - self._place) <= KNOWN):
                self._place = end
                return _common(tokens, end, written)
        return match

    def _repeated(self, written: Sequence[int], most: int) -> Guess | None:
        """Guess that the completion goes on as it did after an earlier occurrence of its last tokens."""
        for place in range(self._indexed, len(written)):
            self._repeats[tuple(written[place - MATCH : place])] = place
        self._indexed = max(self._indexed, len(written))
        end = self._repeats.get(tuple(written[-MATCH:]))
        if end is None or most < 1:
            return None
        period = len(written) - end
        tokens = tuple(written[end + i % period] for i in range(most))
        return Guess(tokens, "repeat", _common(written, end, written))


def _common(tokens: Sequence[int], place: int, written: Sequence[int]) -> int:
    """Count the tokens before a place that equal the last ones written, at most `KNOWN`."""
    most = min(KNOWN, place, len(written))
    return next((n for n in range(most) if tokens[place - 1 - n] != written[-1 - n]), most)


class Confidence:
    """Chances that guessed tokens are right, learned from those that were verified."""

    def __init__(self) -> None:
        self._tried = {source: [PRIOR] * (KNOWN + 1) for source in _CHANCES}
        self._right = {source: [PRIOR * chance for chance in chances] for source, chances in _CHANCES.items()}

    def chances(self, guess: Guess) -> list[float]:
        """Return for each token of a guess the chance that it is right if those before it are."""
        right, tried = self._right[guess.source], self._tried[guess.source]
        places = (min(guess.match + i, KNOWN) for i in range(len(guess.tokens)))
        return [right[place] / tried[place] for place in places]

    def learn(self, guess: Guess, tried: int, right: int) -> None:
        """Count a guess of which `tried` tokens were compared, and all or all but the last one were right."""
        hits, trials = self._right[guess.source], self._tried[guess.source]
        for i in range(tried):
            place = min(guess.match + i, KNOWN)
            trials[place] = FORGETTING * trials[place] + 1
            hits[place] = FORGETTING * hits[place] + (i < right)


def best_length(chances: Sequence[Sequence[float]], fixed: float) -> int:
    """Choose the number of tokens to guess for each row of a batch: the one with the most tokens gained per cost.

    A pass over rows of one token and k guesses costs `fixed` + rows · (1 + k), and gains each row one token and those
    of its guesses that are right.

    Args:
        chances: of each row's guessed tokens, as `Confidence.chances` gives them.
        fixed: cost of a pass without tokens, in costs of a token.

    >>> best_length([[0.9] * 16], 16.0), best_length([[0.9] * 16], 0.0), best_length([[0.2] * 16], 8.0)
    (12, 0, 1)
    """
    rows, most = len(chances), max(map(len, chances), default=0)
    if not most:
        return 0
    padded = np.zeros((rows, most))
    for row, chain in zip(padded, chances, strict=True):
        row[: len(chain)] = chain
    gained = rows + np.concatenate([[0.0], padded.cumprod(1).sum(0).cumsum()])
    return int((gained / (fixed + rows * np.arange(1.0, most + 2))).argmax())

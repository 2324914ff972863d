"""Guesses for the samples that are being written: how many of them a pass verifies, and what it teaches."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from transformers import PreTrainedModel

from refinerl.engines.guesses import LOGITS, Confidence, Draft, Guess, Reader, best_length
from refinerl.engines.samples import Sample
from refinerl.engines.verifying import fixed_cost


class Guessing:
    """The readers of the samples' drafts.

    Args:
        drafts: token ids, one draft for each prompt.
        most: tokens that are guessed at a time.
        model: verifies the guesses.
    """

    def __init__(self, drafts: Sequence[Sequence[int]], most: int, model: PreTrainedModel) -> None:
        self._tokens, self._most = drafts, most
        self._vocabulary = model.config.get_text_config().vocab_size
        self._fixed = fixed_cost(model)
        self._confidence = Confidence()
        self._drafts: WeakValueDictionary[int, Draft] = WeakValueDictionary()  # of the samples that are being written
        self._readers: dict[Sample, Reader] = {}
        self._guesses: list[Guess] = []
        self._length = 0

    def guess(self, rows: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Guess the next tokens of each sample, as many as probably pay."""
        self._readers = {s: self._readers.get(s) or Reader(self._draft(s.prompt)) for s in rows}
        most = min(self._most, LOGITS // self._vocabulary // len(rows) - 1)
        limits = (min(most, s.limit - s.written - 1) for s in rows)
        self._guesses = [self._readers[s].guess(s.token_ids, limit) for s, limit in zip(rows, limits, strict=True)]
        self._length = best_length([self._confidence.chances(guess) for guess in self._guesses], self._fixed)
        return [guess.tokens[: self._length] for guess in self._guesses]

    def learn(self, written: Sequence[int], right: Sequence[int]) -> None:
        """Learn from the guesses: the numbers of tokens that the samples got, and of guessed ones among them."""
        for guess, count, hits in zip(self._guesses, written, right, strict=True):
            self._confidence.learn(guess, min(len(guess.tokens), self._length, count), hits)

    def _draft(self, prompt: int) -> Draft:
        found = self._drafts.get(prompt)
        if found is None:
            found = self._drafts[prompt] = Draft(self._tokens[prompt], self._vocabulary)
        return found

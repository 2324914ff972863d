"""Completions that are being written, and the end of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.stopping import cut_at_stop
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.records import Completion, FinishReason


@dataclass(eq=False)
class Sample:
    """A completion that is being written."""

    prompt: int
    """Index of its prompt."""
    number: int
    """Its number among the prompt's completions."""
    prompt_length: int
    limit: int
    """Maximum number of tokens."""
    noise: NDArray[np.float64] | None  # (limit,); None for greedy decoding
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    written: int = 0
    """Number of tokens that were added, before a stop string cuts them."""

    def add(self, token: int, logprob: float, tokenizer: ChatTokenizer, stop: tuple[str, ...]) -> None:
        """Add a token, and finish if it ends the completion."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.written += 1
        self._finish(tokenizer, stop)

    def accept(
        self,
        guess: Sequence[int],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        tokenizer: ChatTokenizer,
        stop: tuple[str, ...],
    ) -> int:
        """Add the tokens that were drawn, as far as each but the last is the guessed one.

        Args:
            guess: n tokens.
            tokens: n + 1 tokens, each drawn on the condition that the guesses before it are right.
            logprobs: of `tokens`.
            tokenizer: as for `add`.
            stop: as for `add`.

        Returns:
            The number of guessed tokens that were added.
        """
        for right, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            self.add(token, logprob, tokenizer, stop)
            if right == len(guess) or token != guess[right]:
                return right
            if self.finish_reason:
                return right + 1
        raise AssertionError("one more token than guesses is drawn")

    def _finish(self, tokenizer: ChatTokenizer, stop: tuple[str, ...]) -> None:
        """Set the finish reason if the last token ends the completion."""
        if self.token_ids[-1] in tokenizer.eos_token_ids:
            self.finish_reason = "stop"
        elif stop and self._stopped(tokenizer, stop):
            return
        elif len(self.token_ids) == self.limit:
            self.finish_reason = "length"
        if self.finish_reason:
            self.text = tokenizer.decode(self.token_ids)

    def _stopped(self, tokenizer: ChatTokenizer, stop: tuple[str, ...]) -> bool:
        """Tell whether a stop string has appeared; if so, cut text and tokens where the first one begins."""
        tail = max(len(text.encode()) for text in stop) + 8  # a token holds at least a byte
        if not any(text in tokenizer.decode(self.token_ids[-tail:]) for text in stop):
            return False
        cut = cut_at_stop(tokenizer, self.token_ids, stop)
        if cut is None:
            return False
        kept, self.text = cut
        del self.token_ids[kept:], self.logprobs[kept:]
        self.finish_reason = "stop"
        return True

    def finished(self) -> Completion:
        """Return the completion."""
        assert self.finish_reason is not None
        return Completion(tuple(self.token_ids), tuple(self.logprobs), self.text, self.finish_reason)


def next_noise(rows: Sequence[Sample], lengths: Sequence[int]) -> Tensor | None:
    """Return the random numbers of the next lengths[i] tokens of each row, (Σ lengths,); None for greedy decoding."""
    parts = [s.noise[s.written : s.written + n] for s, n in zip(rows, lengths, strict=True) if s.noise is not None]
    return torch.from_numpy(np.concatenate(parts)) if parts else None


def close_gaps(rows: list[Sample], cache: DecodingCache) -> list[int]:
    """Drop finished rows by moving the last row into each gap; return the old index of every remaining row."""
    kept = list(range(len(rows)))
    row = 0
    while row < len(rows):
        if rows[row].finish_reason is None:
            row += 1
            continue
        if row != len(rows) - 1:
            if rows[-1].finish_reason is None:
                cache.move(len(rows) - 1, row)
            rows[row], kept[row] = rows[-1], kept[-1]
        rows.pop()
        kept.pop()
    cache.rows = len(rows)
    return kept

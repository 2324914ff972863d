"""Samples that are being written, each in a row of the cache; a finished one makes room for the next.

Rows that end early would otherwise wait for the longest of their batch, in passes that read all weights for a few.
"""

from __future__ import annotations

from collections.abc import Sequence

from refinerl.engines.kv_cache import PlacedCache
from refinerl.engines.prefill import Prompts
from refinerl.engines.samples import Sample, close_gaps


class Slots:
    """The rows of a cache.

    Args:
        cache: empty, with as many rows as are written at a time.
        prompts: fill the rows of samples with their prompts.
        queue: the samples, in the order in which they begin.
    """

    def __init__(self, cache: PlacedCache, prompts: Prompts, queue: Sequence[Sample]) -> None:
        self.rows: list[Sample] = []
        self._cache, self._prompts, self._queue = cache, prompts, queue
        self._begun = 0
        self._admit([*range(min(cache.rows, len(queue)))])

    def turn(self) -> None:
        """Drop the finished samples, and begin others in their rows, or close the gaps."""
        self._admit([row for row, s in enumerate(self.rows) if s.finish_reason])
        close_gaps(self.rows, self._cache)

    def _admit(self, free: Sequence[int]) -> None:
        samples = self._queue[self._begun : self._begun + len(free)]
        self._begun += len(samples)
        for row, s in zip(free, samples, strict=False):
            self.rows[row : row + 1] = [s]
        self._prompts.fill(self._cache, free[: len(samples)], samples)

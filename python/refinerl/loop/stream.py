"""The order of the prompts, which depends on seed and position only, so that a resumed run continues it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from refinerl.errors import UserError
from refinerl.records import Prompt


class PromptStream:
    """Passes over the prompts, each shuffled anew; ends after `epochs` passes, or never."""

    def __init__(self, prompts: Sequence[Prompt], seed: int, epochs: int | None = None) -> None:
        if not prompts:
            raise UserError("the task has no prompts to train on: task.path holds none that can be used")
        self.prompts = prompts
        self.seed = seed
        self.epochs = epochs
        self.end = None if epochs is None else epochs * len(prompts)
        self.position = 0
        """Number of prompts drawn so far; set it to continue from there."""
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def draw(self, count: int) -> list[Prompt]:
        """Draw the next `count` prompts, or fewer at the end."""
        if self.end is not None:
            count = min(count, self.end - self.position)
        drawn = [self._at(position) for position in range(self.position, self.position + count)]
        self.position += count
        return drawn

    def _at(self, position: int) -> Prompt:
        epoch, offset = divmod(position, len(self.prompts))
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed((self.seed << 24) + epoch)
            self._shuffled = (epoch, torch.randperm(len(self.prompts), generator=generator).tolist())
        return self.prompts[self._shuffled[1][offset]]


Passes = Callable[[int, int], Iterator[Prompt]]
"""A function of a seed and the number of a pass that reads the prompts of this pass, in the order that both determine.
"""


class PassStream:
    """Passes over prompts that are read on demand; otherwise as `PromptStream`.

    A position that is set reads everything before it once more.
    """

    def __init__(self, passes: Passes, seed: int, epochs: int | None = None) -> None:
        self.seed = seed
        self.epochs = epochs
        self.position = 0
        """Number of prompts drawn so far; set it to continue from there."""
        self._passes = passes
        self._start()

    def draw(self, count: int) -> list[Prompt]:
        """Draw the next `count` prompts, or fewer at the end.

        Raises:
            UserError: a whole pass has no prompt, or a row cannot be used.
        """
        if self._read > self.position:
            self._start()
        drawn: list[Prompt] = []
        while len(drawn) < count and (prompt := next(self._prompts, None)) is not None:
            self._read += 1
            if self._read > self.position:
                drawn.append(prompt)
        self.position += len(drawn)
        return drawn

    def _start(self) -> None:
        self._read = 0
        self._prompts = self._all()

    def _all(self) -> Iterator[Prompt]:
        number = 0
        while self.epochs is None or number < self.epochs:
            before = self._read
            yield from self._passes(self.seed, number)
            if self._read == before:
                raise UserError("the task has no prompts to train on: all rows of the stream are left out")
            number += 1

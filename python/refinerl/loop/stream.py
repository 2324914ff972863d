"""The order of the prompts, which depends on seed and position only, so that a resumed run continues it."""

from __future__ import annotations

from collections.abc import Sequence

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

"""A run's checkpoints as it goes: when one is due, and what can still be saved when the run ends too early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from refinerl.contracts import ALONE, Trainer, World
from refinerl.run import checkpoint
from refinerl.run.checkpoint import State


class Keeper:
    """Knows the state after the last whole step, and whether the weights are still those of that step.

    Args:
        folder: the run's.
        trainers: the models that learn, by the name of their folder in a checkpoint.
        every: steps between checkpoints.
        keep: checkpoints that stay, beside the best one.
        device: whose random state is kept beside the host's.
    """

    def __init__(
        self,
        folder: Path,
        trainers: Mapping[str, Trainer],
        *,
        every: int = 50,
        keep: int = 2,
        world: World = ALONE,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder = folder
        self.state = State()
        self._device = device
        self._trainers, self._every, self._keep, self._world = dict(trainers), every, keep, world
        self._random: Mapping[str, Any] = {}
        self._saved: int | None = None
        self._whole = True

    def resume(self) -> State:
        """Load the folder's last checkpoint, if there is one; raises as `checkpoint.resume`."""
        self.state = checkpoint.resume(self.folder, self._trainers, self._world, self._device)
        self._saved = self.state.step or None
        self._random = checkpoint.current_random_states(self._device)
        return self.state

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark that weights change: until the next `reached` they belong to no whole step."""
        self._whole = False
        yield

    def reached(self, state: State) -> State:
        """Take the state of a step that is whole; return it."""
        self.state, self._random, self._whole = state, checkpoint.current_random_states(self._device), True
        return state

    def due(self, step: int) -> bool:
        """Is a checkpoint to be written after this step."""
        return self.state.best_step == step or step % self._every == 0

    def save(self) -> Path:
        """Write the state's checkpoint; raises as `checkpoint.save`."""
        saved = checkpoint.save(
            self.folder, self.state, self._trainers, self._keep, self._world, random_states=self._random
        )
        self._saved = self.state.step
        return saved

    def rescue(self) -> None:
        """Save the last whole step of a run that ends too early, if it can be saved.

        It cannot where an update has begun, where another rank would have to take part, or where the disk or the memory
        is full: then the last checkpoint stands.
        """
        if self._world.size > 1 or not self._whole or self.state.step in (0, self._saved):
            return
        try:
            self.save()
        except (OSError, RuntimeError, MemoryError):  # whatever ended the run is the error to report
            return

    def standing(self) -> str:
        """Say what a resumed run goes on from."""
        if self._saved is None:
            return "no checkpoint was written yet, so --resume begins again"
        return f"--resume goes on after step {self._saved}, from {self.folder / f'checkpoint-{self._saved}'}"

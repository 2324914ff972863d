"""The checkpoints of a run: when one is due, and what can be saved when the run is interrupted."""

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
    """Keeps the state after the last complete step, and tracks whether the weights still belong to it.

    Args:
        folder: the run's.
        trainers: the models that learn, by the name of their folder in a checkpoint.
        every: steps between checkpoints.
        keep: checkpoints that are kept, in addition to the best one.
        device: the device whose random state is saved with the host's.
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
        """Load the folder's last checkpoint, if there is one. Raises as `checkpoint.resume`."""
        self.state = checkpoint.resume(self.folder, self._trainers, self._world, self._device)
        self._saved = self.state.step or None
        self._random = checkpoint.current_random_states(self._device)
        return self.state

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark the weights as changing: until the next `reached` they belong to no complete step."""
        self._whole = False
        yield

    def reached(self, state: State) -> State:
        """Record the state of a complete step; return it."""
        self.state, self._random, self._whole = state, checkpoint.current_random_states(self._device), True
        return state

    def due(self, step: int) -> bool:
        """Return True if a checkpoint is to be written after this step."""
        return self.state.best_step == step or step % self._every == 0

    def save(self) -> Path:
        """Write a checkpoint of the state. Raises as `checkpoint.save`."""
        saved = checkpoint.save(
            self.folder, self.state, self._trainers, self._keep, self._world, random_states=self._random
        )
        self._saved = self.state.step
        return saved

    def rescue(self) -> None:
        """Save the last complete step of an interrupted run, if possible.

        It is not possible if an update has begun, if other ranks would have to take part, or if disk or memory are
        full. Then the last checkpoint remains the state to resume from.
        """
        if self._world.size > 1 or not self._whole or self.state.step in (0, self._saved):
            return
        try:
            self.save()
        except (OSError, RuntimeError, MemoryError):  # the error that ended the run is the one to report
            return

    def standing(self) -> str:
        """Describe the state that a resumed run continues from."""
        if self._saved is None:
            return "no checkpoint was written yet, so --resume begins again"
        return f"--resume goes on after step {self._saved}, from {self.folder / f'checkpoint-{self._saved}'}"

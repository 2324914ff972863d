"""The checkpoints of a run: when one is due, and what can be saved when the run is interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from refinerl.contracts import ALONE, Trainer, World
from refinerl.run import checkpoint, random_states
from refinerl.run.checkpoint import Saves, State
from refinerl.run.interruption import Interrupted, Interruption


class Keeper:
    """Keeps the state after the last complete step, and tracks whether the weights still belong to it.

    Args:
        folder: the run's.
        trainers: the models that learn, by the name of their folder in a checkpoint.
        tokenizer: saved beside the policy's weights in a checkpoint; None: checkpoints are only for `resume`.
        every: steps between checkpoints.
        minutes: minutes after which a checkpoint is due, however many steps they were; 0: never.
        keep: checkpoints that are kept, in addition to the best one.
        interruption: the requests to end the run.
        device: the device whose random state is saved with the host's.
    """

    def __init__(
        self,
        folder: Path,
        trainers: Mapping[str, Trainer],
        *,
        tokenizer: Saves | None = None,
        every: int = 50,
        minutes: float = 0.0,
        keep: int = 2,
        world: World = ALONE,
        device: torch.device | str = "cpu",
        interruption: Interruption | None = None,
    ) -> None:
        self.folder = folder
        self.state = State()
        self.interruption = interruption or Interruption()
        self._device, self._tokenizer = device, tokenizer
        self._trainers, self._every, self._keep, self._world = dict(trainers), every, keep, world
        self._seconds = 60.0 * minutes
        self._written = time.monotonic()
        self._random: Mapping[str, Any] = {}
        self._saved: int | None = None
        self._whole = True
        self._agreed = False
        self._failed = ""

    def resume(self) -> State:
        """Load the folder's last checkpoint, if there is one. Raises as `checkpoint.resume`."""
        self.state = checkpoint.resume(self.folder, self._trainers, self._world, self._device)
        self._saved = self.state.step or None
        self._random = random_states.current(self._device)
        return self.state

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark the weights as changing: until the next `reached` they belong to no complete step.

        Until then a request to end the run waits, too. A request that has arrived before ends it here.
        """
        self._agree()
        self.interruption.hold(f"step {self.state.step + 1} is finished and saved")
        self._whole = False
        yield

    def reached(self, state: State) -> State:
        """Record the state of a complete step; return it. A request that has arrived in the meantime ends the run."""
        self.state, self._random, self._whole = state, random_states.current(self._device), True
        self.interruption.release()
        self._agree()
        return state

    def _agree(self) -> None:
        """End the run if it was asked to, all ranks together.

        Raises:
            Interrupted: a request has arrived, at any rank.
        """
        if self._world.size == 1:
            self.interruption.check()
            return
        asked = int(self._world.all_reduce(torch.tensor(self.interruption.asked or 0), "max"))
        self._agreed = asked > 0
        if asked:  # a request that has arrived since then waits for the next agreement
            raise Interrupted(asked)

    def due(self, step: int) -> bool:
        """Return True if a checkpoint is to be written after this step. All ranks agree on the time."""
        late = self._seconds > 0 and time.monotonic() - self._written >= self._seconds
        if self._seconds > 0:
            late = bool(self._world.all_reduce(torch.tensor(int(late)), "max"))
        return late or self.state.best_step == step or step % self._every == 0

    def save(self) -> Path:
        """Write a checkpoint of the state. Raises as `checkpoint.save`."""
        saved = checkpoint.save(
            self.folder,
            self.state,
            self._trainers,
            self._keep,
            self._world,
            random_states=self._random,
            tokenizer=self._tokenizer,
        )
        self._saved, self._written = self.state.step, time.monotonic()
        return saved

    def take_best(self) -> None:
        """Load the policy of the step with the best evaluation; nothing is saved after that.

        Raises:
            UserError: its checkpoint is not there any more.
        """
        if self.state.best_step in (None, self.state.step):
            return
        self._whole = False
        checkpoint.load_policy(self.folder, self.state.best_step or 0, self._trainers["policy"])

    def rescue(self) -> None:
        """Save the last complete step of an interrupted run, if possible.

        It is not possible if an update has begun, if other ranks would have to take part and do not, or if disk or
        memory are full. Then the last checkpoint remains the state to resume from.
        """
        apart = self._world.size > 1 and not self._agreed
        if apart or not self._whole or self.state.step in (0, self._saved):
            return
        self.interruption.hold(f"checkpoint-{self.state.step} is written")
        try:
            self.save()
        except (OSError, RuntimeError, MemoryError) as error:  # the error that ended the run is the one to report
            self._failed = f" (checkpoint-{self.state.step} could not be written: {error})"

    def standing(self) -> str:
        """Describe the state that a resumed run continues from."""
        return checkpoint.standing(self.folder) + self._failed

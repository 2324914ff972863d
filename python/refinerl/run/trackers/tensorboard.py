"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.run.trackers.base import module
from refinerl.run.trackers.examples import Example, markdown


class TensorBoard:
    """Event files in the run's folder `tensorboard`, which a resumed run goes on with.

    The first step of a start hides what an earlier start wrote from that step on.
    """

    name = "tensorboard"
    takes_earlier = True

    def __init__(self, folder: Path) -> None:
        self._module = self.library()
        self._folder = folder / "tensorboard"
        self._writer: Any = None
        self._is_new = not self._folder.exists()

    @staticmethod
    def library() -> Any:
        """Import TensorBoard. Raises UserError if it is not installed."""
        return module("torch.utils.tensorboard", "tensorboard")

    def lacks(self, step: int) -> bool:
        """Return True if no earlier start has written event files."""
        return self._is_new

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one step's metrics."""
        writer = self._open(step)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def tell(self, examples: Sequence[Example], step: int) -> None:
        """Write responses of a step as one text."""
        writer = self._open(step)
        writer.add_text("completions", markdown(examples), step)
        writer.flush()

    def _open(self, step: int) -> Any:
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=step)
        return self._writer

    def close(self, *, failed: bool) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()

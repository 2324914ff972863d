"""Runs from Python: `refinerl.fine_tune`, and the run that it returns."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from refinerl.engines import devices
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.torch import TorchTrainer
from refinerl.errors import TrainingStoppedError, UserError, pip_install
from refinerl.report.metrics import read_metrics, training
from refinerl.report.page import write_page
from refinerl.report.reading import read_step
from refinerl.report.rows import RolloutRow
from refinerl.report.windows import windows
from refinerl.run.arguments import new_folder
from refinerl.run.asked import Asked as Asked
from refinerl.run.borrowed import as_found
from refinerl.run.command import Loop, check_resumable, run
from refinerl.run.launch import linked


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run, read from its folder on demand. Folders written by the command work too.

    Args:
        folder: holds metrics.jsonl, rollouts/, checkpoints and final/.
        trained: the trained model and its tokenizer if they are in memory; otherwise they are loaded from final/.

    Raises:
        UserError: the folder does not hold a run.
    """

    folder: Path
    trained: tuple[Any, Any] | None = None

    def __init__(self, folder: str | os.PathLike[str], trained: tuple[Any, Any] | None = None) -> None:
        object.__setattr__(self, "folder", Path(folder))
        object.__setattr__(self, "trained", trained)
        if not (self.folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not the folder of a run: it lacks config.yaml")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row for each step, by metric name (docs/metrics.md). None stands for a metric without a value.

        With `evaluate.every`, the first row is that of step 0, which holds the evaluation before training only.
        """
        return read_metrics(self.folder)

    def metrics_frame(self) -> Any:
        """Return the metrics as a pandas DataFrame, one row per step.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError as error:
            raise UserError(
                f"metrics_frame() needs pandas, which is not installed: {pip_install('pandas')}, or read .metrics"
            ) from error
        return pandas.DataFrame(self.metrics).drop(columns="schema", errors="ignore").set_index("step")

    def rollouts(self, step: int) -> list[RolloutRow]:
        """Return every response of a step, with its reward and its refinement.

        Raises:
            UserError: the run has no such step.
        """
        return read_step(self.folder, step)

    @property
    def model(self) -> Any:
        """The trained model, in evaluation mode. A LoRA policy is a `PeftModel`, unless it is loaded from final/."""
        return self._final()[0]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with the run's chat template."""
        return self._final()[1]

    def report(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write a report of the run as an HTML page; return its path, by default report.html in the run's folder.

        Raises:
            UserError: jinja2 is not installed, a file of the run is damaged, or the page cannot be written.
        """
        return write_page(self.folder, None if output is None else Path(output))

    def __repr__(self) -> str:
        steps = training(self.metrics)
        means = [(part.mean("reward/mean"), part.label) for part in windows(steps)] if steps else []
        told = " → ".join(f"{mean.value:.3g} in {label}" for mean, label in means if mean is not None)
        return f"Run({str(self.folder)!r}: {len(steps)} steps{f', mean reward {told}' if told else ''})"

    def _final(self) -> tuple[Any, Any]:
        if self.trained is None:
            final = self.folder / "final"
            if not final.is_dir():
                raise UserError(f"{self.folder} has no final/ yet: the run has not ended; resume=True continues it")
            loaded = load_model(str(final)), ChatTokenizer.load(final).inner
            object.__setattr__(self, "trained", loaded)
            return loaded
        return self.trained


def fine_tune(loop: Loop, asked: Asked, output_dir: str | os.PathLike[str] | None, *, resume: bool = False) -> Run:
    """Run what `refinerl.fine_tune` was called with, in the same way as the command does."""
    with linked() as link, as_python_says_it():
        check_resumable(output_dir, resume=resume)
        if not isinstance(output_dir, str | os.PathLike | None):
            raise UserError(f"output_dir must be a path, got {output_dir!r}")
        recipe, given = asked.resolve()
        notes = recipe.notes(device=str(devices.resolve(recipe.config.device)))
        folder = new_folder(asked.name) if output_dir is None else Path(output_dir).expanduser()
        console = Console(quiet=link.rank > 0)
        with (
            as_found(given.model),
            run(loop, recipe.config, folder, console, link, resume=resume, given=given, notes=notes) as parts,
        ):
            policy = parts.updater.policy
            whole = (policy.network.whole, parts.tokenizer.inner) if isinstance(policy, TorchTrainer) else None
            return Run(parts.keeper.folder, whole)


_FLAGS = {
    "--resume": "resume=True",
    "--output-dir": "output_dir",
    "see --list": "`python -m refinerl.train --list` names them",
}


@contextmanager
def as_python_says_it() -> Iterator[None]:
    """Replace the flags in messages of exceptions by arguments of `refinerl.fine_tune`."""
    try:
        yield
    except (UserError, TrainingStoppedError, KeyboardInterrupt) as error:
        message = str(error)
        for flag, argument in _FLAGS.items():
            message = message.replace(flag, argument)
        error.args = (message,) if message else ()
        raise

"""Services that the metrics of a run and a sample of its responses are also sent to.

base         the Protocol of a tracker, and its optional package
examples     the responses of a step that are sent, as text that is safe to show
tensorboard  event files in the run's folder
services     Weights & Biases and Trackio
mlflow       MLflow
identity     trackers.json: the ids with which a resumed run continues, and the steps that were sent
delivery     several trackers at once; one that fails neither ends the run nor harms the others
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.run.trackers.base import Tracker
from refinerl.run.trackers.delivery import Delivery
from refinerl.run.trackers.examples import Example
from refinerl.run.trackers.mlflow import MLflow
from refinerl.run.trackers.services import Trackio, WandB
from refinerl.run.trackers.tensorboard import TensorBoard

__all__ = ["Delivery", "Example", "Tracker", "make_trackers"]


def make_trackers(
    names: Sequence[str],
    folder: Path,
    config: Mapping[str, Any],
    *,
    project: str = "refinerl",
    run_name: str | None = None,
) -> list[Tracker]:
    """Make the trackers that are asked for.

    Args:
        names: `tensorboard`, `wandb`, `trackio` or `mlflow`; one that is named twice is made once.
        folder: the run's; it has the ids of a run that goes on.
        config: every knob of the run, which services show beside its metrics.
        project, run_name: the run's place and name in wandb, trackio and mlflow. None: the folder's name. A run that
            goes on keeps those that it has.

    Raises:
        UserError: one is not installed, or cannot start.
    """
    kinds: dict[str, Callable[..., Tracker]] = {"wandb": WandB, "trackio": Trackio, "mlflow": MLflow}
    name_of_run = run_name or folder.resolve().name
    made: list[Tracker] = []
    try:
        for name in dict.fromkeys(names):
            made.append(
                TensorBoard(folder) if name == "tensorboard" else kinds[name](folder, config, project, name_of_run)
            )
    except BaseException:
        for tracker in made:
            tracker.close(failed=True)
        raise
    return made

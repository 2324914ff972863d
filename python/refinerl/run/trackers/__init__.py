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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.errors import UserError
from refinerl.run.trackers.base import Tracker
from refinerl.run.trackers.delivery import Delivery
from refinerl.run.trackers.examples import Example
from refinerl.run.trackers.mlflow import MLflow
from refinerl.run.trackers.services import Service, Trackio, WandB
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
        UserError: one is not installed, and none was started; or one cannot start, and those before it were ended.
    """
    kinds: dict[str, type[Service] | type[MLflow]] = {"wandb": WandB, "trackio": Trackio, "mlflow": MLflow}
    asked = list(dict.fromkeys(names))
    for name in asked:
        (TensorBoard if name == "tensorboard" else kinds[name]).library()
    name_of_run = run_name or folder.resolve().name
    made: list[Tracker] = []
    try:
        for name in asked:
            made.append(
                TensorBoard(folder) if name == "tensorboard" else kinds[name](folder, config, project, name_of_run)
            )
    except UserError as error:
        raise UserError("; ".join([str(error), *_ended(made)])) from error
    except BaseException:
        _ended(made)
        raise
    return made


def _ended(trackers: Sequence[Tracker]) -> list[str]:
    """End trackers that have taken no step; describe those in which a run was begun. TensorBoard begins with a step."""
    said = []
    for tracker in trackers:
        how = ": its run is ended, without a step of this start"
        try:
            tracker.close(failed=True)
        except Exception as error:  # the message of the tracker that cannot start says more
            how = f", and did not end ({type(error).__name__})"
        if not isinstance(tracker, TensorBoard):
            said.append(f"{tracker.name} had started before{how}")
    return said

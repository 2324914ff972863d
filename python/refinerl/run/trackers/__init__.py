"""Services that the metrics of a run are also sent to: TensorBoard, Weights & Biases, Trackio.

A resumed run continues what it began there: `trackers.json` in the run's folder has the ids.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from refinerl.data.files import write
from refinerl.data.jsonlines import parse
from refinerl.errors import UserError, pip_install

SCHEMA = 1
IDS = "trackers.json"


class Tracker(Protocol):
    """A service that metrics are also sent to."""

    name: str

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, without those that have no value."""

    def close(self) -> None:
        """Send what is pending."""


class TensorBoard:
    """Event files in the run's folder `tensorboard`, which a resumed run goes on with."""

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self._module = _module("torch.utils.tensorboard", "tensorboard")
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one step's metrics. The first call hides what an earlier start wrote from this step on."""
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()


class Service:
    """A run of wandb or trackio, which have the same interface: init(project=, name=), log(dict, step=), finish().

    Wandb identifies a run by an id, trackio by its name.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any], project: str, run_name: str) -> None:
        self.name = name
        self._module: Any = _module(name, name)
        self._path = folder / IDS
        known = _ids(self._path).get(name)
        resume: dict[str, Any] = {} if known is None else {"resume": "allow"}
        if known is not None:
            project, run_name = known["project"], known["name"]
            if known.get("id"):
                resume["id"] = known["id"]
        try:
            run = self._module.init(project=project, name=run_name, config=dict(config), **resume)
        except Exception as error:  # wandb's own errors, and those of its network
            reason = next(iter(str(error).strip().split("\n")), "") or type(error).__name__
            offline = (
                "log in with `wandb login`, or set WANDB_MODE=offline in the environment" if name == "wandb" else ""
            )
            raise UserError(
                f"telemetry.trackers={name} cannot start: {reason}; {offline or 'take it out of telemetry.trackers'}"
            ) from error
        self._identity = {"project": project, "name": run_name, "id": getattr(run, "id", None)}
        self._kept = known == self._identity

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics; after a first training step the run's id is kept."""
        self._module.log(dict(metrics), step=step)
        if step and not self._kept:
            ids = {"schema": SCHEMA, **_ids(self._path), self.name: self._identity}
            write(self._path, json.dumps(ids, indent=1, default=str) + "\n")
            self._kept = True

    def close(self) -> None:
        """Send what is pending."""
        self._module.finish()


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
        folder: the run's; it has the ids of a run that goes on.
        project, run_name: the run's place and name in wandb and trackio. None: the folder's name. A run that goes on
            keeps those that it has.

    Raises:
        UserError: one is not installed, or cannot start.
    """
    name_of_run = run_name or folder.resolve().name
    return [
        TensorBoard(folder) if name == "tensorboard" else Service(name, folder, config, project, name_of_run)
        for name in names
    ]


def _ids(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = parse(str(path), path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise UserError(
            f"{path} was not written by this version of refinerl: delete it to begin new runs in the trackers"
        )
    return found


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"telemetry.trackers asks for {package}, which is not installed: {pip_install(package)}"
        ) from error

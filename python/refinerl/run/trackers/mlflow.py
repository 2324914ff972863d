"""MLflow: metrics and parameters of a run, and responses as JSON artifacts."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from refinerl.run.trackers.base import cannot_start, module
from refinerl.run.trackers.examples import COLUMNS, Example
from refinerl.run.trackers.identity import Identity

BATCH = 100
"""Parameters of a request, the most that MLflow accepts."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Settings of the first requests to a server, unless the environment has its own: the run waits for them."""

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of the stores that need SQLAlchemy, which comes with `mlflow` and not with `mlflow-skinny`."""
ALLOW_FOLDER = "MLFLOW_ALLOW_FILE_STORE"
"""The variable without which recent releases take no folder as their store."""


class MLflow:
    """A run of MLflow, in the experiment with the project's name, where MLflow's own settings say.

    Responses are artifacts, `completions/step-N.json`, one for each step: an object with `columns` and `data`.
    """

    name = "mlflow"
    takes_earlier = True

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str, run_name: str) -> None:
        self._module = self.library()
        self._entities = module("mlflow.entities", "mlflow-skinny")
        self._identity = Identity(folder, self.name)
        known = self._identity.known
        try:
            with _patience():
                self._client: Any = self._module.MlflowClient()
                self._id = self._continued(known) if known else self._begun(config, project, run_name)
        except Exception as error:  # MLflow's own errors, and those of its network or database
            raise cannot_start(self.name, *self._explained(error)) from error
        place = {"project": project, "name": run_name} if known is None else known
        self._identity.begin(project=place["project"], name=place["name"], id=self._id)

    @staticmethod
    def library() -> Any:
        """Import MLflow. Raises UserError if it is not installed."""
        return module("mlflow", "mlflow-skinny")

    def _explained(self, error: Exception) -> tuple[Exception, str]:
        """Return what is wrong, in one sentence where MLflow uses several, and the way out."""
        store = str(self._module.get_tracking_uri())
        server = "set MLFLOW_TRACKING_URI to a server"
        if (scheme := store.partition(":")[0].partition("+")[0]) in DATABASES and not find_spec("sqlalchemy"):
            named = store if scheme == "sqlite" else scheme  # the others may hold a password
            reason = f"its store here is a database, {named}, and mlflow-skinny has none"
            return RuntimeError(reason), f"pip install mlflow, or {server}"
        if ALLOW_FOLDER in str(error):
            reason = f"it takes a folder, {store}, only with {ALLOW_FOLDER}=true in the environment"
            return RuntimeError(reason), f"set that, or {server}"
        return error, f"{server} or a store that works, or take it out of telemetry.trackers"

    def _continued(self, known: Mapping[str, Any]) -> str:
        run_id = str(known["id"])
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _begun(self, config: Mapping[str, Any], project: str, run_name: str) -> str:
        found = self._client.get_experiment_by_name(project)
        experiment = self._client.create_experiment(project) if found is None else found.experiment_id
        run_id = str(self._client.create_run(experiment, run_name=run_name).info.run_id)
        params = [self._entities.Param(key, value) for key, value in flat(config)]
        for start in range(0, len(params), BATCH):
            self._client.log_batch(run_id, params=params[start : start + BATCH])
        return run_id

    def lacks(self, step: int) -> bool:
        """Return True if no earlier start has sent the step."""
        return not self._identity.was_sent(step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, unless an earlier start has; after a first training step the run's id is kept."""
        if not self.lacks(step):
            return
        now = int(1000 * time.time())
        names = accepted(metrics)
        batch = [self._entities.Metric(names[name], value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=batch)
        self._identity.sent(step)

    def tell(self, examples: Sequence[Example], step: int) -> None:
        """Write responses of a step as an artifact, unless an earlier start has."""
        if self.lacks(step):
            table = {"columns": list(COLUMNS), "data": [example.cells() for example in examples]}
            self._client.log_dict(self._id, table, f"completions/step-{step:06}.json")

    def close(self, *, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def accepted(names: Mapping[str, float] | Sequence[str]) -> dict[str, str]:
    """Return the names under which MLflow accepts metrics: without `@`, and none that is a folder of another.

    >>> accepted(["evaluate/pass@1", "evaluate/reward", "evaluate/reward/length"])["evaluate/reward"]
    'evaluate/reward/all'
    >>> accepted(["evaluate/pass@1"])
    {'evaluate/pass@1': 'evaluate/pass_at_1'}
    """
    plain = {name: re.sub(r"[^\w/.\- :]", "_", name.replace("@", "_at_")) for name in names}
    folders = {name.rpartition("/")[0] for name in plain.values()}
    return {name: f"{used}/all" if used in folders else used for name, used in plain.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten a configuration into dotted knobs and their values as text.

    >>> list(flat({"seed": 0, "trainer": {"steps": 3, "betas": [0.9, 0.95]}}))
    [('seed', '0'), ('trainer.steps', '3'), ('trainer.betas', '[0.9, 0.95]')]
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


@contextmanager
def _patience() -> Iterator[None]:
    mine = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)

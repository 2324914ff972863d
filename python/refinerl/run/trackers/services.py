"""Weights & Biases and Trackio, which have similar interfaces: init(project=, name=), log(dict, step=), finish()."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.run.trackers.base import cannot_start, module
from refinerl.run.trackers.examples import COLUMNS, Example
from refinerl.run.trackers.identity import Identity

KEY = "completions"
"""The name of the table, or of the traces, of responses."""


class Service(ABC):
    """A run of wandb or trackio."""

    name: str
    takes_earlier = True
    remedy = "take it out of telemetry.trackers"
    """The way out if it cannot start."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str, run_name: str) -> None:
        self._module: Any = self.library()
        self._identity = Identity(folder, self.name)
        known = self._identity.known
        resume: dict[str, Any] = {}
        if known is not None:
            project, run_name = known["project"], known["name"]
            resume = {"resume": "allow", **self._resumed(known)}
        try:
            self._run: Any = self._module.init(project=project, name=run_name, config=dict(config), **resume)
        except Exception as error:  # the service's own errors, and those of its network
            raise cannot_start(self.name, error, self.remedy) from error
        self._identity.begin(project=project, name=run_name, id=getattr(self._run, "id", None))

    @classmethod
    def library(cls) -> Any:
        """Import the service's library. Raises UserError if it is not installed."""
        return module(cls.name, cls.name)

    def lacks(self, step: int) -> bool:
        """Return True if no earlier start has sent the step."""
        return not self._identity.was_sent(step)

    def _resumed(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `init` that identify the run, beside its project and name."""
        return {}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, unless an earlier start has; after a first training step the run's id is kept."""
        if self.lacks(step):
            self._run.log(dict(metrics), step=step)
            self._identity.sent(step)

    def tell(self, examples: Sequence[Example], step: int) -> None:
        """Send responses of a step, unless an earlier start has."""
        if self.lacks(step):
            self._run.log({KEY: self._made(examples, step)}, step=step)

    @abstractmethod
    def _made(self, examples: Sequence[Example], step: int) -> Any:
        """Return the responses of a step as the service takes them."""

    def close(self, *, failed: bool) -> None:
        """Send what is pending."""
        self._run.finish()


class WandB(Service):
    """A run of Weights & Biases. It is identified by an id.

    Responses are rows of one incremental table: each step adds to it, and none replaces what came before. The run's
    page shows its last 100 increments. W&B drops without an error what is logged for a step before its last one.
    """

    name = "wandb"
    takes_earlier = False
    remedy = "log in with `wandb login`, or set WANDB_MODE=offline in the environment"

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str, run_name: str) -> None:
        super().__init__(folder, config, project, run_name)
        self._table: Any = None
        self._added = 0

    def lacks(self, step: int) -> bool:
        """Return True if no earlier start has sent the step or a later one."""
        return self._identity.is_new(step)

    def _resumed(self, known: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": known["id"]} if known.get("id") else {}

    def _made(self, examples: Sequence[Example], step: int) -> Any:
        """Return the table with the step's rows; a second try after a failure does not add them again."""
        if self._table is None:
            self._table = self._module.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")
        if step != self._added:
            for example in examples:
                self._table.add_data(*example.cells())
            self._added = step
        return self._table

    def close(self, *, failed: bool) -> None:
        """Send what is pending, and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


class Trackio(Service):
    """A run of Trackio, which identifies it by its name. Responses are traces."""

    name = "trackio"

    def _made(self, examples: Sequence[Example], step: int) -> Any:
        return [self._module.Trace(messages=messages(example), metadata=metadata(example)) for example in examples]


def messages(example: Example) -> list[dict[str, str]]:
    """Write an example as a conversation: the question, y, and ỹ as a message of the refiner."""
    said = [{"role": "user", "content": example.question}, {"role": "assistant", "content": example.y}]
    refined = example.refined
    return said if refined is None else [*said, {"role": "assistant", "name": "refiner", "content": refined}]


def metadata(example: Example) -> dict[str, Any]:
    """Return what a trace tells beside its conversation."""
    return {name: getattr(example, name) for name in COLUMNS if name not in ("question", "y", "refined")}

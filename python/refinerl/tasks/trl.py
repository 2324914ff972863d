"""Arguments that TRL passes to reward functions besides prompts, completions and columns.

`trainer_state` is a `transformers.TrainerState`, from which a reward may follow the course of the training.
`log_extra(column, values)` keeps a value for each completion, and `log_metric(name, value)` a number for the call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refinerl.errors import UserError

NAMES = ("trainer_state", "log_extra", "log_metric")


class Progress:
    """The course of a run, as reward functions see it.

    Args:
        steps: the number of steps of the run.
        per_pass: the steps that one pass over the prompts takes; None if it is unknown.

    >>> progress = Progress(steps=10, per_pass=4)
    >>> progress.at(3)
    >>> progress.trainer_state.global_step, progress.trainer_state.max_steps, progress.trainer_state.epoch
    (2, 10, 0.5)
    """

    def __init__(self, steps: int = 0, per_pass: float | None = None) -> None:
        self.steps, self.per_pass = steps, per_pass
        self._step = 1

    def at(self, step: int) -> None:
        """Enter a step; steps are counted from 1."""
        self._step = step

    @property
    def trainer_state(self) -> Any:
        """A new `transformers.TrainerState`, whose `global_step` counts the steps that are finished."""
        from transformers import TrainerState

        done = self._step - 1
        return TrainerState(
            global_step=done, max_steps=self.steps, epoch=done / self.per_pass if self.per_pass else 0.0
        )


class Log:
    """The values that one call of a reward function logs.

    Args:
        name: the function's name in messages.
        count: the number of completions.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._columns: dict[str, list[Any]] = {}
        self._metrics: dict[str, list[float]] = {}

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Keep a value for each completion.

        Raises:
            UserError: their number is not that of the completions.
        """
        kept = [_plain(value) for value in values]
        if len(kept) != self._count:
            raise UserError(
                f"the reward function {self._name} logged {len(kept)} values of {column!r}, not {self._count}: one for "
                "each completion"
            )
        self._columns[str(column)] = kept

    def log_metric(self, name: str, value: float) -> None:
        """Keep a number; of several of the same name, the mean counts.

        Raises:
            UserError: it is not a finite number.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"the reward function {self._name} logged {value!r} as {name!r}: a metric must be a number")
        self._metrics.setdefault(str(name), []).append(number)

    @property
    def columns(self) -> list[dict[str, Any]]:
        """For each completion, the values of all columns."""
        return [{name: values[i] for name, values in self._columns.items()} for i in range(self._count)]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The numbers, by name."""
        return {name: math.fsum(values) / len(values) for name, values in self._metrics.items()}


def _plain(value: Any) -> Any:
    """Return what a JSON file can hold: texts, finite numbers and None as they are, the rest as text."""
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)

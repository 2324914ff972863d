"""Objects that Python passes to a run in place of what a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from refinerl.contracts import Algorithm, Constraints, Task
from refinerl.contracts.plugins import OBJECT
from refinerl.data.apps import ProblemSet
from refinerl.data.conversations import Dialogues
from refinerl.errors import UserError

OnStep = Callable[[Mapping[str, Any]], Any]
"""Function that is called with each step's row of metrics, as in metrics.jsonl."""


@dataclass(frozen=True)
class Given:
    """The objects of a run, in addition to its configuration. None: the configuration gives the name."""

    model: PreTrainedModel | None = None
    """The model that policy, reference and refiner are copied from; it is not changed."""
    adapted: Any = None
    """A `PeftModel` whose adapter is trained in place."""
    tokenizer: PreTrainedTokenizerBase | None = None
    data: ProblemSet | Dialogues | None = None
    rewards: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Functions in TRL's signature, by their names in `task.reward`."""
    task: Task | None = None
    algorithm: Algorithm | None = None
    constraint: Constraints | None = None
    on_step: OnStep | None = None


NOTHING = Given()
"""The default: everything is given by name, as on the command line."""


def refuse_object(name: str, knob: str, argument: str) -> None:
    """Refuse a name that stands for an object, because a configuration file cannot hold the object.

    Raises:
        UserError: the name stands for an object. The message says which argument of `refinerl.fine_tune` takes it.
    """
    if name.startswith(OBJECT):
        raise UserError(f"{knob}={name} was an object, which only refinerl.fine_tune({argument}=…) can hand over")


def name_of(thing: Any) -> str:
    """Return the name that stands for an object in the configuration."""
    owner = thing if hasattr(thing, "__qualname__") and hasattr(thing, "__module__") else type(thing)
    return f"{OBJECT}{owner.__module__}.{owner.__qualname__}"

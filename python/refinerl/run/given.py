"""Objects that stand in the place of what a configuration names: how Python hands over what YAML cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from refinerl.contracts import Algorithm, Constraints, Task
from refinerl.contracts.plugins import OBJECT
from refinerl.data.apps import ProblemSet
from refinerl.data.conversations import Dialogue
from refinerl.errors import UserError

OnStep = Callable[[Mapping[str, Any]], Any]
"""Called with each step's row of metrics, as metrics.jsonl holds it."""


@dataclass(frozen=True)
class Given:
    """The objects of a run, beside its configuration. None: the configuration says it by name."""

    model: PreTrainedModel | None = None
    """Policy, reference and refiner start from copies of it; it stays as it is."""
    adapted: Any = None
    """A `PeftModel`, whose adapter is the policy's and learns in place."""
    tokenizer: PreTrainedTokenizerBase | None = None
    data: ProblemSet | Sequence[Dialogue] | None = None
    rewards: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Functions in TRL's signature, by their names in `task.reward`."""
    task: Task | None = None
    algorithm: Algorithm | None = None
    constraint: Constraints | None = None
    on_step: OnStep | None = None


NOTHING = Given()
"""The command's: everything is said by name."""


def refuse_object(name: str, knob: str, argument: str) -> None:
    """Refuse a name in a configuration that stands for an object, which a file cannot hold.

    Raises:
        UserError: it does; the message names the argument of `refinerl.fine_tune` that takes the object.
    """
    if name.startswith(OBJECT):
        raise UserError(f"{knob}={name} was an object, which only refinerl.fine_tune({argument}=…) can hand over")


def name_of(thing: Any) -> str:
    """The name that stands in the configuration for an object."""
    owner = thing if hasattr(thing, "__qualname__") and hasattr(thing, "__module__") else type(thing)
    return f"{OBJECT}{owner.__module__}.{owner.__qualname__}"

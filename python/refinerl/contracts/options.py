"""Options of a part: a section of a recipe, validated by the part's own pydantic model.

A plug-in derives from the base class of its kind and nests its options: `class Options(Constraint.Options)`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Place:
    """The mark of a knob that may hold a path, which in a recipe is relative to the recipe's file.

    data: a file or folder, or an address such as `hub:OWNER/NAME`. model: a folder, or a name of the hub. template: a
    file, or a name without a suffix, or Jinja text.
    """

    kind: Literal["data", "model", "template"]


DataPath = Annotated[str, Place("data")]
ModelPath = Annotated[str, Place("model")]
TemplatePath = Annotated[str, Place("template")]


def _names(given: Any) -> Any:
    several = given if isinstance(given, list | tuple) else [given]
    if not all(isinstance(name, str) for name in several):
        raise ValueError(f"task.reward must be a name, or a list of names such as [a:b,c:d], got {given!r}")
    return given


Rewards = Annotated[str | tuple[str, ...], BeforeValidator(_names)]
"""The names of one or several rewards."""


def derived(source: str) -> Any:
    """Declare a field whose default follows from other knobs.

    Args:
        source: the knob whose value it is, such as `trainer.batch`; or a formula for readers, where a validator of the
            section computes it.
    """
    return Field(default=None, validate_default=False, json_schema_extra={"derived": source})


def default_of(field: FieldInfo) -> str | None:
    """Return the `source` of a derived default, or None if the field has a default of its own."""
    extra = field.json_schema_extra
    return str(extra["derived"]) if isinstance(extra, dict) and "derived" in extra else None


@dataclass(frozen=True)
class When:
    """The condition under which a run reads a knob."""

    said: str
    """The setting that meets it, such as `engines.generator=vllm`."""
    holds: Callable[[Any, Any], bool]
    """Tells from the knob's section and the whole configuration whether it is met."""


Reads = MappingProxyType
"""A table that cannot be changed: knob -> `When`."""

ALL = "*"
"""All knobs of a section but `name`, as a key of `Section.read_when`."""


class Section(BaseModel):
    """A group of knobs. Unknown keys are refused; None means the default, unless the knob may be None."""

    read_when: ClassVar[Mapping[str, When]] = Reads({})
    """The conditions under which a run reads the section's knobs, by knob; a knob without one is always read. A
    subclass adds its own to those of its bases."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @classmethod
    def conditions(cls, knob: str) -> list[When]:
        """Return the conditions under which a knob is read."""
        stated = ChainMap(*(dict(vars(base).get("read_when", {})) for base in cls.__mro__))
        return [stated[key] for key in (ALL, knob) if key in stated and knob != "name"]

    @model_validator(mode="before")
    @classmethod
    def _none_is_unset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        return {
            key: value
            for key, value in given.items()
            if value is not None or key not in fields or type(None) in get_args(fields[key].annotation)
        }


class Options(Section):
    """The section of one part: `name` selects its class, the other keys are the options of the class."""

    kind: ClassVar[str]
    """Key of the section."""
    common: ClassVar[frozenset[str]] = frozenset()
    """Keys that all parts of this kind share."""

    name: str = ""
    """A built-in name, or `module:Class` for a class of your own."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        """Merge the keys under `options` into the section, and drop known keys whose value is None.

        Raises:
            ValueError: a key is given twice, with two values.
        """
        if not isinstance(given, Mapping):
            return given
        nested = given.get("options") or {}
        if not isinstance(nested, Mapping):
            raise ValueError(f"{cls.kind}.options must be a mapping of keys to values, got {nested!r}")
        known = cls.model_fields
        flat = {k: v for k, v in given.items() if k != "options" and (v is not None or k not in known)}
        for key, value in nested.items():
            if key in flat and flat[key] != value:
                raise ValueError(
                    f"{cls.kind}.{key} is given twice, as {flat[key]!r} and in {cls.kind}.options as {value!r}: "
                    "leave one of them out"
                )
        return flat | {key: value for key, value in nested.items() if value is not None}

    @model_serializer(mode="wrap")
    def _nest(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Put the keys of a user's class under `options`; those of a built-in class stay beside the common ones."""
        values: dict[str, Any] = dump(self)
        if ":" not in self.name:
            return values
        own = {key: value for key, value in values.items() if key not in self.common}
        return {key: value for key, value in values.items() if key in self.common} | {"options": own}


class AlgorithmOptions(Options):
    """The algorithm that turns rewards into a policy gradient."""

    kind = "algorithm"
    samples_per_prompt: Count = 1
    """Responses to each prompt. 8 for algorithms that compare the responses to a prompt."""
    epochs: Count = 1
    """Passes over each batch of rollouts."""
    clip_low: Positive = 0.2
    """Lower clip of the ratio, at 1 − clip_low."""
    clip_high: Positive = 0.2
    """Upper clip of the ratio, at 1 + clip_high."""
    loss_reduction: Literal["token", "sequence"] = "token"
    """token: mean over all tokens of the minibatch; sequence: mean over each response, then over responses."""
    entropy_bonus: NonNegative = 0.0
    """Weight of the entropy bonus in the loss."""
    max_resamples: CountOrZero = 3
    """Maximum rounds in which groups without a training signal are replaced by new prompts."""


class ConstraintOptions(Options):
    """The constraint on the policy: none, KL to the reference, the online refiner, or a class of your own."""

    kind = "constraint"
    read_when = Reads(
        {
            "reduction": When("constraint.apply=loss", lambda own, run: own.apply == "loss"),
            "penalty_in_group": When(
                "constraint.apply=reward and an algorithm that compares the responses to a prompt, such as dapo",
                lambda own, run: own.apply == "reward" and run.grouped,
            ),
        }
    )
    beta: NonNegative = 1e-2
    """The constraint's weight β."""
    apply: Literal["loss", "reward"] = "loss"
    """loss: a term of the loss, with gradient; reward: subtracted from y's rewards, as in RLHF (default of static)."""
    reduction: Literal["sequence", "token"] = "token"
    """Average in the loss: over responses (default of dynamic) or over tokens."""
    penalty_in_group: Literal["before", "after"] = "before"
    """With apply=reward and an algorithm that compares groups: subtract it before or after group normalisation."""


class TaskOptions(Options):
    """The source of prompts and rewards."""

    kind = "task"
    max_prompt_tokens: Count | None = None
    """Prompts with more tokens are left out. None: those that leave no room for generation.max_tokens."""
    system: str | None = None
    """System message before each prompt."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """Names of the rewards that are added up; () if the task has a reward of its own."""
        return ()

    @property
    def bounded(self) -> bool:
        """True if the reward has a known upper bound, or if the task has a reward of its own."""
        return True


COMMON: dict[str, type[Options]] = {"algorithm": AlgorithmOptions, "constraint": ConstraintOptions, "task": TaskOptions}
"""The options that all parts of a kind share."""
for _base in COMMON.values():
    _base.common = frozenset(_base.model_fields)

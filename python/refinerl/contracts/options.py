"""Options: what a recipe says of a part, typed and validated by the part's own model.

A plug-in derives from the base class of its kind and nests its options: `class Options(Constraint.Options)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.fields import FieldInfo

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


def derived(source: str) -> Any:
    """Declare a field whose default follows from other knobs.

    Args:
        source: the knob whose value it is, such as `trainer.batch`; or a formula for readers, where a validator of the
            section computes it.
    """
    return Field(default=None, validate_default=False, json_schema_extra={"derived": source})


def default_of(field: FieldInfo) -> str | None:
    """The `source` of a derived default; None of a field that has a default of its own."""
    extra = field.json_schema_extra
    return str(extra["derived"]) if isinstance(extra, dict) and "derived" in extra else None


class Section(BaseModel):
    """A group of knobs; unknown keys are refused. A key set to None keeps its default unless None is a value of it."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

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
    """What a section of the recipe says of one part: `name` picks its class, the other keys are the class's options."""

    kind: ClassVar[str]
    """The section's key."""
    common: ClassVar[frozenset[str]] = frozenset()
    """Keys that every part of this kind has."""

    name: str = ""
    """A built-in name, or `module:Class` of your own."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        """Take the keys out of `options`; a key of None is left to its default.

        Raises:
            ValueError: a key is given twice, with two values.
        """
        if not isinstance(given, Mapping):
            return given
        nested = given.get("options") or {}
        if not isinstance(nested, Mapping):
            raise ValueError(f"{cls.kind}.options must be a mapping of keys to values, got {nested!r}")
        flat = {key: value for key, value in given.items() if key != "options" and value is not None}
        for key, value in nested.items():
            if key in flat and flat[key] != value:
                raise ValueError(
                    f"{cls.kind}.{key} is given twice, as {flat[key]!r} and in {cls.kind}.options as {value!r}: "
                    "leave one of them out"
                )
        return flat | {key: value for key, value in nested.items() if value is not None}

    @model_serializer(mode="wrap")
    def _nest(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys of a class of your own stand under `options`, those of a built-in one beside the common ones."""
        values: dict[str, Any] = dump(self)
        if ":" not in self.name:
            return values
        own = {key: value for key, value in values.items() if key not in self.common}
        return {key: value for key, value in values.items() if key in self.common} | {"options": own}


class AlgorithmOptions(Options):
    """How rewards become a policy gradient."""

    kind = "algorithm"
    samples_per_prompt: Count = 1
    """Responses to each prompt; 8 for an algorithm that compares the members of a group."""
    epochs: Count = 1
    """Passes over each batch of rollouts."""
    clip_low: Positive = 0.2
    """The ratio is clipped below at 1 − clip_low."""
    clip_high: Positive = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    loss_reduction: Literal["token", "sequence"] = "token"
    """Mean over all tokens of the minibatch, or over each response and then over responses."""
    entropy_bonus: NonNegative = 0.0
    max_resamples: CountOrZero = 3
    """Rounds of new prompts at most for groups without a signal, then go on with what there is."""


class ConstraintOptions(Options):
    """What holds the policy: nothing, KL to the reference, the online refiner, or a class of your own."""

    kind = "constraint"
    beta: NonNegative = 1e-2
    """The constraint's weight β."""
    apply: Literal["loss", "reward"] = "loss"
    """In the loss, with gradient; or detached in y's rewards, as RLHF's KL is (the default of static)."""
    reduction: Literal["sequence", "token"] = "token"
    """In the loss: averaged over responses (the default of dynamic) or over tokens."""
    penalty_in_group: Literal["before", "after"] = "before"
    """Group algorithms with apply=reward: the penalty enters before or after group normalisation."""


class TaskOptions(Options):
    """Where prompts and rewards come from."""

    kind = "task"
    max_prompt_tokens: Count | None = None
    """Longer prompts are left out and counted; None: those that leave no room for generation.max_tokens."""
    system: str | None = None
    """System message before each question."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of the rewards that are added up; () for a task that has its own."""
        return ()

    @property
    def bounded(self) -> bool:
        """True if the reward has a known highest value, or is the task's own affair."""
        return True


COMMON: dict[str, type[Options]] = {"algorithm": AlgorithmOptions, "constraint": ConstraintOptions, "task": TaskOptions}
"""What every part of a kind can be told."""
for _base in COMMON.values():
    _base.common = frozenset(_base.model_fields)

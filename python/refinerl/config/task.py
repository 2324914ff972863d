"""The section `task`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from refinerl.config.choice import class_of
from refinerl.contracts import plugins
from refinerl.contracts.options import Count, Section


class TaskConfig(Section):
    """Where prompts and rewards come from."""

    name: str = "code"
    """`code`, `dialogue`, or `module:Class` of your own, which brings its own data and reward."""
    path: str | None = None
    """JSON lines, or for `code` APPS's folder per problem or `hub:OWNER/NAME/FILE`, for `dialogue` Parquet, a folder
    that `datasets` reads, or `hub:OWNER/NAME`; None: the embedded problem set (code only)."""
    reward: str | tuple[str, ...] = "adaptive"
    """`adaptive` (Eq. 8), `coarse` (Eq. 7); for dialogue `model` (reward_model.model), `rule:answer`, `rule:matches`;
    or `module:function` of your own, in TRL's signature. dialogue: several, as [a:b,c:d], are added up."""
    reward_weights: tuple[float, ...] = ()
    """dialogue: one for each reward; none: 1 each."""
    column: str | None = None
    """dialogue: where the prompts are; None: the first there is of prompt, context_messages, messages."""
    split: str = "train"
    """dialogue: which part of a data set that `datasets` reads."""
    max_prompt_tokens: Count | None = None
    """Longer prompts are left out and counted; None: those that leave no room for generation.max_tokens."""
    template: str | None = None
    """Question template: a file, or a name out of tasks/prompts; None: the task's own."""
    system: str | None = None
    """System message before each question."""
    max_tests: Count | None = None
    """Tests per problem at most, a deterministic choice."""
    visible_tests: int | float = 1
    """code: how many of a problem's tests the refiner may be shown in `$feedback`, the first ones; a float such as 0.5
    is a share. The others stay hidden."""
    difficulty: str | None = None
    """Only problems of this difficulty."""
    embedded: Literal["all", "trivial", "easy"] = "all"
    """Which of the embedded problems, where no path is given."""
    prompt_format: Literal["chat", "apps", "text"] = "chat"
    """code: the question in the template, or APPS's own text (`QUESTION: … ANSWER:`). dialogue: a prompt that is a text
    becomes a message of the user's, or (`text`) goes to the model as it is, and rewards get texts, as TRL has it."""
    options: dict[str, Any] = Field(default={})
    """Of a class of your own: its options, such as `task.options.split=train`."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of the rewards that are added up."""
        return (self.reward,) if isinstance(self.reward, str) else self.reward

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        class_of("task", name)
        return name

    @field_validator("visible_tests", mode="before")
    @classmethod
    def _visible(cls, given: Any) -> Any:
        number = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
        if not number or (isinstance(given, float) and given > 1):
            raise ValueError(
                f"task.visible_tests must be a number of tests, such as 2, or a share, such as 0.5, got {given!r}"
            )
        return given

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name", "")
        if name.startswith(plugins.OBJECT) or not name:
            return options
        if ":" not in name:
            if options:
                raise ValueError(f"task.options must be left out for task.name={name}, whose knobs are task.path, …")
            return {}
        dumped: dict[str, Any] = class_of("task", name).Options.model_validate(options).model_dump(mode="json")
        return dumped

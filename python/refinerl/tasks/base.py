"""The base class of tasks of your own, which write `examples` and `reward`; docs/extending.md builds one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from refinerl.contracts.options import TaskOptions
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward
from refinerl.tasks.refining import Refinable


class Task(Refinable, ABC):
    """A source of prompts and rewards; a `refinerl.contracts.Task`.

    Args:
        options: an instance of the class's `Options`.
        given: values for a new one, by name, if `options` is left out.
    """

    class Options(TaskOptions):
        """The options of a recipe; a subclass adds its own."""

    max_reward: float | None = None
    """The highest possible reward, if there is one; a response that has it is not refined."""
    refine_template = "refine_dialogue"
    """The template that asks the refiner for a minimal correction: a file, or a name from tasks/prompts."""

    def __init__(self, options: TaskOptions | None = None, /, **given: Any) -> None:
        self.options: Any = self.Options(**given) if options is None else options
        self.too_long = 0
        """Number of prompts that were left out because of their length."""
        self._prompts: list[Prompt] = []
        if type(self).feedback is Task.feedback:
            self._no_feedback = f"{type(self).__name__} has no method feedback"

    @abstractmethod
    def examples(self) -> Iterable[tuple[str, Any]]:
        """Return pairs of a question and whatever `reward` needs to judge an answer to it."""

    @abstractmethod
    def reward(self, known: Any, answer: str) -> float | None:
        """Return the reward of an answer, or None to mask the sample; `known` is the second half of the pair."""

    def feedback(self, known: Any, answer: str) -> str:
        """Return what the refiner is told of an answer, for `$feedback`: nothing. It must not reveal `known`."""
        return ""

    def connect(
        self,
        encode_chat: Callable[[Sequence[Message]], Sequence[int]],
        *,
        max_prompt_tokens: int | None = None,
        system: str | None = None,
        refine_template: str | None = None,
    ) -> None:
        """Make the prompts of the policy; those that are too long are left out and counted.

        Args:
            encode_chat: applies the policy's chat template, with the generation prompt, and tokenizes.
            max_prompt_tokens: the length of the longest prompt that is kept; None keeps all.
            system: a system message before each question and before the refiner's prompt.
            refine_template: the template for the refiner, instead of the class's.

        Raises:
            UserError: no prompt is left; an example is no pair that begins with a text; the refiner's template cannot
                be used.
        """
        self._ask_with(refine_template or self.refine_template, system=system)
        made = []
        for index, example in enumerate(self.examples()):
            if not isinstance(example, tuple | list) or len(example) != 2 or not isinstance(example[0], str):
                raise UserError(
                    f"{type(self).__name__}.examples must give pairs of a question, which is a text, and what reward "
                    f"needs to judge an answer, got {example!r}"
                )
            question, known = example
            messages: tuple[Message, ...] = (*self._system, {"role": "user", "content": question})
            made.append(Prompt(str(index), question, messages, tuple(encode_chat(messages)), known))
        self._prompts = [p for p in made if max_prompt_tokens is None or len(p.token_ids) <= max_prompt_tokens]
        self.too_long = len(made) - len(self._prompts)
        if not self._prompts:
            raise UserError(
                f"{type(self).__name__}.examples gave {len(made)} prompts, none of at most {max_prompt_tokens} tokens"
            )

    def prompts(self) -> Sequence[Prompt]:
        """Return the prompts that are short enough, in the order of `examples`."""
        return self._prompts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Score each completion with `reward`.

        Raises:
            UserError: a reward is not a finite number.
        """
        return [self._score(p, self.extract(c.text)) for p, c in zip(prompts, completions, strict=True)]

    def _score(self, prompt: Prompt, answer: str) -> Reward | None:
        value = self.reward(prompt.payload, answer)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{type(self).__name__}.reward returned {value!r} for an answer to prompt {prompt.id}; it must return "
                "a finite number, or None where the reward does not apply"
            )
        return Reward(number, "scored", feedback=self.feedback(prompt.payload, answer))

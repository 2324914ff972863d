"""The defaults of a task. One of your own is `examples` and `reward`; docs/extending.md builds one."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from refinerl.contracts.options import TaskOptions
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward, Rollout
from refinerl.tasks import templates


class Task(ABC):
    """Where prompts and rewards come from; a `refinerl.contracts.Task`.

    Args:
        options: an instance of the class's `Options`; or else
        given: its values by name.
    """

    class Options(TaskOptions):
        """What a recipe may say of it; a subclass adds its own."""

    max_reward: float | None = None
    """The highest reward there is, if rewards are bounded: such a y is not refined."""
    refine_template = "refine_dialogue"
    """Asks the refiner for a minimal correction: a file, or a name out of tasks/prompts."""

    def __init__(self, options: TaskOptions | None = None, /, **given: Any) -> None:
        self.options: Any = self.Options(**given) if options is None else options
        self.too_long = 0
        """Prompts that were left out because of their length."""
        self._prompts: list[Prompt] = []
        self._system: tuple[Message, ...] = ()

    @abstractmethod
    def examples(self) -> Iterable[tuple[str, Any]]:
        """Pairs of a question and whatever `reward` needs to judge an answer to it."""

    @abstractmethod
    def reward(self, known: Any, answer: str) -> float | None:
        """What an answer earns; `known` is the question's second half. None: the sample is masked."""

    def feedback(self, known: Any, answer: str) -> str:
        """What the refiner is told of an answer, for `$feedback`. It must not give away what is `known`. Nothing."""
        return ""

    def extract(self, text: str) -> str:
        """The part of a response that is scored; the same function for y and ỹ. The whole text."""
        return text

    def connect(
        self,
        encode_chat: Callable[[Sequence[Message]], Sequence[int]],
        *,
        max_prompt_tokens: int | None = None,
        system: str | None = None,
        refine_template: str | None = None,
    ) -> None:
        """Make the prompts, with the policy's chat template and tokenizer; too long ones are left out and counted.

        Raises:
            UserError: no prompt is left; the refiner's template cannot be used.
        """
        self._refine = self._load(refine_template or self.refine_template)
        self._system = ({"role": "system", "content": system},) if system is not None else ()
        made = []
        for index, (question, known) in enumerate(self.examples()):
            messages: tuple[Message, ...] = (*self._system, {"role": "user", "content": question})
            made.append(Prompt(str(index), question, messages, tuple(encode_chat(messages)), known))
        self._prompts = [p for p in made if max_prompt_tokens is None or len(p.token_ids) <= max_prompt_tokens]
        self.too_long = len(made) - len(self._prompts)
        if not self._prompts:
            raise UserError(
                f"{type(self).__name__}.examples gave {len(made)} prompts, none of at most {max_prompt_tokens} tokens"
            )

    def prompts(self) -> Sequence[Prompt]:
        """All prompts that are short enough, in the order of `examples`."""
        return self._prompts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """One `reward` for each completion.

        Raises:
            UserError: a reward is no finite number.
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

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """The conversation that asks the refiner for a minimal correction of y."""
        asked = self._refine.messages(
            question=rollout.prompt.text,
            response=rollout.completion.text,
            feedback="" if rollout.reward is None else rollout.reward.feedback,
        )
        return (*self._system, *asked)

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """See whether ỹ only repeats an answer that `feedback` told; it is then not accepted. False."""
        return False

    def _load(self, template: str) -> templates.PromptTemplate:
        none = type(self).feedback is Task.feedback
        return templates.load_refine_template(
            template, f"{type(self).__name__} has no method feedback" if none else None
        )

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """ỹ: the refiner's reply without chat text around the template's markers."""
        return self._refine.strip_markers(reply)

    def refined_by(self, template: str) -> Task:
        """The same task with another template for the refiner."""
        twin = copy.copy(self)
        twin._refine = self._load(template)
        return twin

    def telemetry(self) -> Mapping[str, float]:
        """Metrics since the last call: none."""
        return {}

    def close(self) -> None:  # noqa: B027 - most tasks have nothing to end
        """Nothing to end."""

"""The defaults that all tasks share: how they ask the refiner, and what they do not measure or hold."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from typing_extensions import Self

from refinerl.records import Completion, Message, Reward, Rollout
from refinerl.tasks.templates import PromptTemplate, load_refine_template


class Refinable:
    """A task whose responses a template asks the refiner to correct."""

    _refine: PromptTemplate
    _no_feedback: str | None = None
    """The reason why the task has nothing to say for `$feedback`; None if it has."""
    _system: tuple[Message, ...] = ()
    """The system message of every conversation, if there is one."""

    def _ask_with(self, template: str, *, system: str | None) -> None:
        """Load the refiner's template and set the system message.

        Raises:
            UserError: the template cannot be used.
        """
        self._refine = load_refine_template(template, self._no_feedback)
        self._system = () if system is None else ({"role": "system", "content": system},)

    @property
    def has_feedback(self) -> bool:
        """True if a template may use `$feedback`."""
        return self._no_feedback is None

    def extract(self, text: str) -> str:
        """Return the part of a response that is scored, in y and ỹ alike: here the whole text."""
        return text

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """Return the conversation that asks the refiner for a minimal correction of y, after x's system message."""
        asked = self._refine.messages(
            question=rollout.prompt.text,
            response=rollout.completion.text,
            feedback="" if rollout.reward is None else rollout.reward.feedback,
        )
        own = [message for message in rollout.prompt.messages[:1] if message["role"] == "system"]
        return (*(own or self._system), *asked)

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """Return ỹ: the refiner's reply without chat text around the template's markers."""
        return self._refine.strip_markers(reply)

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """See whether ỹ only repeats an answer that the feedback showed; it is then not accepted. Here False."""
        return False

    def refined_by(self, template: str) -> Self:
        """Return the same task, with what scores it, that asks the refiner with another template.

        Raises:
            UserError: the template cannot be used.
        """
        twin = copy.copy(self)
        twin._refine = load_refine_template(template, self._no_feedback)
        return twin

    def telemetry(self) -> Mapping[str, float]:
        """Return metrics since the last call: none."""
        return {}

    def close(self) -> None:
        """Release what the task holds: nothing."""

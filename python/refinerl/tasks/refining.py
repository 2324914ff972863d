"""Defaults that all tasks share: the request to the refiner, and empty implementations of optional methods."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from typing_extensions import Self

from refinerl.records import Completion, Message, Prompt, Reward, Rollout
from refinerl.tasks.templates import PromptTemplate, load_refine_template


class Refinable:
    """Base of tasks that ask the refiner for corrections with a template."""

    _refine: PromptTemplate
    _no_feedback: str | None = None
    """The reason why the task has no text for `$feedback`; None if it has one."""
    _system: tuple[Message, ...] = ()
    """The system message of every conversation; empty if there is none."""

    def _ask_with(self, template: str, *, system: str | None) -> None:
        """Load the refiner's template and set the system message.

        Raises:
            UserError: the template does not exist or is invalid.
        """
        self._refine = load_refine_template(template, self._no_feedback)
        self._system = () if system is None else ({"role": "system", "content": system},)

    @property
    def has_feedback(self) -> bool:
        """True if a template may use `$feedback`."""
        return self._no_feedback is None

    @property
    def refine_stop(self) -> tuple[str, ...]:
        """Strings at which a reply of the refiner ends, besides its model's EOS."""
        return self._refine.stop

    def extract(self, text: str) -> str:
        """Return the part of a response that is scored, for y and ỹ alike; by default the whole text."""
        return text

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """Return the request for a minimal correction of y, preceded by x's system message or else the task's."""
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
        """Return True if ỹ only repeats an answer from the feedback, so that it is not accepted; by default False."""
        return False

    def refined_by(self, template: str) -> Self:
        """Return a shallow copy of the task, with the same scorer, that asks the refiner with another template.

        Raises:
            UserError: the template does not exist or is invalid.
        """
        twin = copy.copy(self)
        twin._refine = load_refine_template(template, self._no_feedback)
        return twin

    def expect(self, prompt: Prompt, completion: Completion) -> None:
        """Begin to score a completion that `score` will be asked for; by default nothing is done before."""

    def telemetry(self) -> Mapping[str, float]:
        """Return metrics collected since the last call; by default none."""
        return {}

    def close(self) -> None:
        """Release the task's resources; by default there are none."""

"""The dialogue task: conversations, rewarded by a reward model, a rule or a function of the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import model_validator

from refinerl.contracts.options import TaskOptions
from refinerl.data.conversations import Dialogue, dialogues_of, read_dialogues
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward, Rollout
from refinerl.tasks import rules, templates
from refinerl.tasks.reward_sum import RewardSum
from refinerl.tasks.user_reward import UserReward

if TYPE_CHECKING:  # the options are read without torch
    from refinerl.tasks.reward_model import RewardModel

Encode = Callable[[Sequence[Message]], Sequence[int]]
"""Applies the policy's chat template, with the generation prompt, and tokenizes."""


class DialogueTask:
    """Conversations, rewarded by a reward model, by rules or by functions.

    A prompt that is a text becomes one message of the user's, after `system`; with `encode_text` it goes to the model
    bare, and the reward function then gets texts, as TRL has it for such data. Prompts of more than
    `max_prompt_tokens` are left out and counted in `too_long`. `max_reward` is the highest reward where there is one; a
    response that has it is not refined.

    Raises:
        UserError: the refiner's template cannot be used; the reward function asks for a column that does not exist; a
            prompt is not usable, or all are too long.
    """

    class Options(TaskOptions):
        """What a recipe may say of it."""

        path: str | None = None
        """JSON lines, Parquet, a folder that `datasets` reads, or `hub:OWNER/NAME`."""
        column: str | None = None
        """Where the prompts are; None: the first there is of prompt, context_messages, messages."""
        split: str = "train"
        """Which part of a data set that `datasets` reads."""
        reward: str | tuple[str, ...] = ()
        """`model` (reward_model.model), `rule:answer`, `rule:matches`, or `module:function` of your own, in TRL's
        signature; several, as [a:b,c:d], are added up."""
        reward_weights: tuple[float, ...] = ()
        """One for each reward; none: 1 each."""
        prompt_format: Literal["chat", "text"] = "chat"
        """A prompt that is a text becomes a message of the user's, or (`text`) goes to the model as it is, and rewards
        get texts, as TRL has it."""

        @model_validator(mode="after")
        def _named(self) -> DialogueTask.Options:
            if self.path is None:
                raise ValueError(
                    "task.path must be given for task.name=dialogue: JSON lines with a `prompt` column, or a data set"
                )
            wrong = [name for name in self.rewards if name != "model" and ":" not in name]
            if wrong or not self.rewards:
                raise ValueError(
                    "task.reward must be model, rule:NAME or module:function for task.name=dialogue, "
                    f"got {repr(wrong[0]) if wrong else 'none'}"
                )
            if self.reward_weights and len(self.reward_weights) != len(self.rewards):
                raise ValueError(
                    f"task.reward_weights must have one weight for each reward: {len(self.rewards)}, "
                    f"got {len(self.reward_weights)}"
                )
            return self

        @property
        def rewards(self) -> tuple[str, ...]:
            """The names of the rewards that are added up."""
            return (self.reward,) if isinstance(self.reward, str) else self.reward

        @property
        def bounded(self) -> bool:
            """True if all rewards are rules, whose highest value is known, and none counts against an answer."""
            return self.max_reward is not None and all(weight >= 0 for weight in self.reward_weights)

        @property
        def max_reward(self) -> float | None:
            """The highest reward that there is, if each of the rewards has one: rules do."""
            if not all(name.startswith("rule:") for name in self.rewards):
                return None
            weights = self.reward_weights or (1.0,) * len(self.rewards)
            return sum(rules.MAX_REWARD * max(weight, 0.0) for weight in weights)

        def read(self, rows: Any = None) -> Sequence[Dialogue]:
            """Read the dialogues at `path`, or those of `rows` in memory.

            Raises:
                UserError: they cannot be read.
            """
            if rows is not None:
                return dialogues_of(rows, column=self.column)
            return read_dialogues(self.path or "", column=self.column, split=self.split)

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        encode: Encode,
        *,
        reward: UserReward | RewardModel | RewardSum,
        max_reward: float | None = None,
        refine_template: str | None = None,
        system: str | None = None,
        encode_text: Callable[[str], Sequence[int]] | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        self.max_reward = max_reward
        self._reward = reward if isinstance(reward, RewardSum) else RewardSum([reward])
        self._no_feedback = (
            None if max_reward is not None else "only rules have a verdict, such as task.reward=rule:answer"
        )
        self._refine = templates.load_refine_template(refine_template or "refine_dialogue", self._no_feedback)
        columns: dict[str, None] = {}
        self._prompts = _Prompts(dialogues, encode, encode_text, system)
        for index, dialogue in enumerate(dialogues):
            columns |= dict.fromkeys(dialogue.columns)
            self._prompts.keep(index, dialogue, max_prompt_tokens)
        self.too_long = len(dialogues) - len(self._prompts)
        if not self._prompts:
            raise UserError(f"all {len(dialogues)} prompts are longer than {max_prompt_tokens} tokens")
        self._reward.check(columns)

    def prompts(self) -> Sequence[Prompt]:
        """One prompt for each dialogue that is short enough, made when asked for; its `payload` is the Dialogue."""
        return self._prompts

    def extract(self, text: str) -> str:
        """The whole text."""
        return text

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Ask the reward model, or call the function on the batch; None where it gives none."""
        rewards = self._reward(prompts, completions, [prompt.payload.columns for prompt in prompts])
        if self.max_reward is None:
            return rewards
        return [None if r is None else replace(r, feedback=verdict(r.value, self.max_reward)) for r in rewards]

    def refine_prompt(self, rollout: Rollout) -> Sequence[Message]:
        """The conversation that asks the refiner for a minimal correction of y."""
        asked = self._refine.messages(
            question=rollout.prompt.text,
            response=rollout.completion.text,
            feedback="" if rollout.reward is None else rollout.reward.feedback,
        )
        return (*self._prompts.system, *asked)

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        """ỹ: the reply without chat text around the template's markers."""
        return self._refine.strip_markers(reply)

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        """False: a verdict shows no answer."""
        return False

    def refined_by(self, template: str) -> DialogueTask:
        """The same task, what scores it included, with another template for the refiner."""
        twin = copy.copy(self)
        twin._refine = templates.load_refine_template(template, self._no_feedback)
        return twin

    def telemetry(self) -> Mapping[str, float]:
        """Of a reward model, the share of conversations that were cut at their start."""
        return self._reward.telemetry()

    def close(self) -> None:
        """Nothing to end."""


class _Prompts(Sequence[Prompt]):
    """The prompts of the dialogues that were kept, tokenized when asked for: a large data set stays on disk."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        encode: Encode,
        encode_text: Callable[[str], Sequence[int]] | None,
        system: str | None,
    ) -> None:
        self.system: tuple[Message, ...] = ({"role": "system", "content": system},) if system is not None else ()
        self._dialogues, self._encode, self._encode_text = dialogues, encode, encode_text
        self._kept: list[int] = []

    def keep(self, index: int, dialogue: Dialogue, max_tokens: int | None) -> None:
        """Add a dialogue unless it is longer than `max_tokens`; tokenizing finds what the chat template refuses."""
        length = len(self._make(dialogue).token_ids)
        if max_tokens is None or length <= max_tokens:
            self._kept.append(index)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(index, slice):
            return [self._make(self._dialogues[i]) for i in self._kept[index]]
        return self._make(self._dialogues[self._kept[index]])

    def _make(self, dialogue: Dialogue) -> Prompt:
        if isinstance(dialogue.prompt, str) and self._encode_text is not None:
            return Prompt(dialogue.id, dialogue.prompt, (), tuple(self._encode_text(dialogue.prompt)), dialogue)
        messages = self._conversation(dialogue.prompt)
        return Prompt(dialogue.id, transcript(dialogue.prompt), messages, tuple(self._encode(messages)), dialogue)

    def _conversation(self, prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
        if isinstance(prompt, str):
            return (*self.system, {"role": "user", "content": prompt})
        return prompt if prompt[0]["role"] == "system" else (*self.system, *prompt)


def verdict(value: float, most: float) -> str:
    """What the refiner is told of a reward by rules; never the answer that they compare with."""
    if value >= most:
        return "Verdict: right."
    return "Verdict: wrong." if value <= 0 else f"Verdict: partly right, {value:g} of {most:g} points."


def transcript(prompt: str | Sequence[Message]) -> str:
    """A conversation as plain text: a single message of the user's as it is, else each turn after its role."""
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in turns)

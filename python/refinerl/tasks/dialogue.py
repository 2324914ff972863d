"""The dialogue task: conversations, rewarded by a reward model, rules or functions of the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import model_validator

from refinerl.contracts.options import DataPath, Positive, TaskOptions
from refinerl.data.conversations import Dialogue, dialogues_of, read_dialogues
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward
from refinerl.tasks import rules
from refinerl.tasks.refining import Refinable
from refinerl.tasks.reward_sum import RewardSum
from refinerl.tasks.user_reward import UserReward

if TYPE_CHECKING:  # the options are read without torch
    from refinerl.tasks.reward_model import RewardModel

Encode = Callable[[Sequence[Message]], Sequence[int]]
"""A function that applies the policy's chat template, with the generation prompt, and tokenizes."""


class DialogueTask(Refinable):
    """Conversations, rewarded by a reward model, by rules or by functions.

    Args:
        dialogues: at least one. A prompt that is a text becomes a message of the user's.
        encode: the policy's chat template and tokenizer.
        reward: scores the answers.
        max_reward: the highest possible reward, if there is one; a response that has it is not refined.
        system: a system message before each prompt that has none, and before the refiner's prompt.
        encode_text: if given, a prompt that is a text goes to the model bare, through this tokenizer, and reward
            functions get texts, as in TRL.
        max_prompt_tokens: longer prompts are left out and counted in `too_long`.

    Raises:
        UserError: the refiner's template cannot be used; a reward function asks for a column that does not exist; a
            prompt cannot be used, or all are too long.
    """

    class Options(TaskOptions):
        """The options of a recipe."""

        path: DataPath | None = None
        """JSON lines, Parquet, a folder that `datasets` reads, `hub:OWNER/NAME` or `hub:OWNER/NAME/FILE`."""
        column: str | None = None
        """Column of the prompts; None: the first of prompt, context_messages and messages that exists."""
        split: str = "train"
        """Split of a data set that `datasets` reads."""
        reward: str | tuple[str, ...] = ()
        """`model` (reward_model.model), `rule:answer`, `rule:matches`, or `module:function` of your own, in TRL's
        signature; several, such as [a:b,c:d], are added up."""
        reward_weights: tuple[float, ...] = ()
        """Weights, one for each reward; empty: 1 each."""
        reward_seconds: Positive = 900.0
        """Seconds that one call of a reward function of your own may take; a longer one ends the run."""
        prompt_format: Literal["chat", "text"] = "chat"
        """`chat`: a prompt that is a text becomes a message of the user's; `text`: it goes to the model as it is, and
        reward functions get texts, as in TRL."""

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
            """The highest possible reward if all rewards are rules, else None."""
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
            None if max_reward is not None else "only rules give a verdict, such as task.reward=rule:answer"
        )
        self._ask_with(refine_template or "refine_dialogue", system=system)
        self._encode, self._encode_text = encode, encode_text
        self._take(dialogues, max_prompt_tokens)

    def over(self, dialogues: Sequence[Dialogue], *, max_prompt_tokens: int | None = None) -> DialogueTask:
        """Return the same task, with the same reward, over other dialogues. Raises as the class."""
        twin = copy.copy(self)
        twin._take(dialogues, max_prompt_tokens)
        return twin

    def _take(self, dialogues: Sequence[Dialogue], max_prompt_tokens: int | None) -> None:
        """Make the prompts of `dialogues`, and check that the reward can score them."""
        columns: dict[str, None] = {}
        self._prompts = _Prompts(dialogues, self._encode, self._encode_text, self._system)
        for index, dialogue in enumerate(dialogues):
            columns |= dict.fromkeys(dialogue.columns)
            self._prompts.keep(index, dialogue, max_prompt_tokens)
        self.too_long = len(dialogues) - len(self._prompts)
        if not self._prompts:
            raise UserError(f"all {len(dialogues)} prompts are longer than {max_prompt_tokens} tokens")
        self._reward.check(columns)

    def prompts(self) -> Sequence[Prompt]:
        """Return one prompt per dialogue that is short enough, made on access; `payload` is the Dialogue."""
        return self._prompts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Score a batch with the rewards; None where none of them applies."""
        rewards = self._reward(prompts, completions, [prompt.payload.columns for prompt in prompts])
        if self.max_reward is None:
            return rewards
        return [None if r is None else replace(r, feedback=verdict(r.value, self.max_reward)) for r in rewards]

    def telemetry(self) -> Mapping[str, float]:
        """Return a reward model's metrics since the last call."""
        return self._reward.telemetry()


class _Prompts(Sequence[Prompt]):
    """The prompts of the dialogues that are kept, tokenized on access, so that a large data set stays on disk."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        encode: Encode,
        encode_text: Callable[[str], Sequence[int]] | None,
        system: tuple[Message, ...],
    ) -> None:
        self._system = system
        self._dialogues, self._encode, self._encode_text = dialogues, encode, encode_text
        self._kept: list[int] = []

    def keep(self, index: int, dialogue: Dialogue, max_tokens: int | None) -> None:
        """Keep a dialogue unless it is longer than `max_tokens`; tokenizing shows what the chat template refuses.

        Raises:
            UserError: a text without tokens, which a model cannot continue.
        """
        length = len(self._make(dialogue).token_ids)
        if not length:
            raise UserError(f"prompt {dialogue.id} is an empty text, which a model cannot continue: leave it out")
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
            return (*self._system, {"role": "user", "content": prompt})
        return prompt if prompt[0]["role"] == "system" else (*self._system, *prompt)


def verdict(value: float, most: float) -> str:
    """Return the feedback on a reward by rules; it never contains the answer with which the rules compare."""
    if value >= most:
        return "Verdict: right."
    return "Verdict: wrong." if value <= 0 else f"Verdict: partly right, {value:g} of {most:g} points."


def transcript(prompt: str | Sequence[Message]) -> str:
    r"""Format a conversation as plain text: a single message as it is, else each turn after its role.

    >>> transcript([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    'User: Hi\n\nAssistant: Hello'
    """
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in turns)

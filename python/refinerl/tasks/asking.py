"""Prompts of dialogues: conversations through the chat template, texts as they are, both optionally from a template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from refinerl.data.conversations import Dialogue, StreamedDialogues
from refinerl.errors import UserError
from refinerl.records import Message, Prompt
from refinerl.tasks.templates import TASK_VARIABLES, PromptTemplate, load_template

Encode = Callable[[Sequence[Message]], Sequence[int]]
"""A function that applies the policy's chat template, with the generation prompt, and tokenizes."""


@dataclass(frozen=True)
class Asker:
    """The way from a dialogue to the policy's prompt."""

    encode: Encode
    """The policy's chat template and tokenizer."""
    encode_text: Callable[[str], Sequence[int]] | None = None
    """If given, prompts that are texts go to the model through this tokenizer, without a chat template."""
    system: tuple[Message, ...] = ()
    """The system message of conversations that have none."""
    template: PromptTemplate | None = None
    """The template into which prompts that are texts are put."""

    def ask(self, dialogue: Dialogue) -> Prompt:
        """Make the prompt; its `payload` is the dialogue.

        Raises:
            UserError: the template does not fit the dialogue, the chat template refuses it, or it is a text that goes
                to the model as it is although there is a system message.
        """
        asked = dialogue.prompt
        if not isinstance(asked, str):
            if self.template is not None:
                raise UserError(
                    f"task.template is for prompts that are texts, and prompt {dialogue.id} is a list of messages: "
                    "leave out task.template"
                )
            messages = asked if asked[0]["role"] == "system" else (*self.system, *asked)
            return Prompt(dialogue.id, transcript(asked), messages, tuple(self.encode(messages)), dialogue)
        turns = self._filled(asked, dialogue)
        if self.encode_text is not None:
            if self.system:
                raise UserError(
                    f"prompt {dialogue.id} is a text, which goes to the model without task.system: choose "
                    "task.prompt_format=chat, or leave out task.system"
                )
            text = turns[-1]["content"]
            return Prompt(dialogue.id, text, (), tuple(self.encode_text(text)), dialogue)
        messages = (*self.system, *turns)
        return Prompt(dialogue.id, asked, messages, tuple(self.encode(messages)), dialogue)

    def _filled(self, text: str, dialogue: Dialogue) -> tuple[Message, ...]:
        if self.template is None:
            return ({"role": "user", "content": text},)
        values = {"question": text}
        for name in self.template.variables - values.keys():
            if dialogue.columns.get(name) is None:
                raise UserError(f"prompt {dialogue.id} has no value in the column {name}, which task.template uses")
            values[name] = str(dialogue.columns[name])
        return self.template.messages(**values)


def load_question_template(name: str, columns: Mapping[str, Any], *, text: bool) -> PromptTemplate:
    """Load a template for prompts that are texts; `$question` is the prompt, `$NAME` any other column.

    Args:
        name: a file, or a template of the package.
        columns: the columns of the first dialogue.
        text: True if the prompt goes to the model as text, so that the template must not have turns.

    Raises:
        UserError: there is no such template; it uses another variable; it has turns although the prompt is a text.
    """
    template = load_template(name, TASK_VARIABLES, optional=[column for column in columns if column.isidentifier()])
    if text and len(template.turns) > 1:
        raise UserError(
            f"template {name} has {len(template.turns)} turns, and task.prompt_format=text prompts with a single text: "
            "choose task.prompt_format=chat, or write the examples into one text"
        )
    return template


class Prompts(Sequence[Prompt]):
    """The prompts of the dialogues that are kept, tokenized on access, so that a large data set stays on disk.

    Args:
        dialogues: at least one.
        asker: makes the prompts.
        max_tokens: longer prompts are left out. Tokenizing all of them shows what the chat template refuses.

    Raises:
        UserError: a prompt cannot be made, or is a text without tokens, which a model cannot continue.
    """

    def __init__(self, dialogues: Sequence[Dialogue], asker: Asker, max_tokens: int | None) -> None:
        self._dialogues, self._asker = dialogues, asker
        self._kept: list[int] = []
        columns: dict[str, None] = {}
        for index, dialogue in enumerate(dialogues):
            columns |= dict.fromkeys(dialogue.columns)
            if fits(asker.ask(dialogue), max_tokens):
                self._kept.append(index)
        self.columns = tuple(columns)
        """Names of the columns that any dialogue has."""
        self.too_long = len(dialogues) - len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(index, slice):
            return [self._asker.ask(self._dialogues[i]) for i in self._kept[index]]
        return self._asker.ask(self._dialogues[self._kept[index]])


@dataclass(frozen=True)
class StreamedPrompts:
    """The prompts of a stream, pass by pass; a `refinerl.loop.stream.Passes`."""

    dialogues: StreamedDialogues
    asker: Asker
    max_tokens: int | None

    def __call__(self, seed: int, number: int) -> Iterator[Prompt]:
        """Make the prompts of pass `number`, without those that are too long. Raises as `Prompts`."""
        prompts = map(self.asker.ask, self.dialogues.shuffled(seed, number))
        return (prompt for prompt in prompts if fits(prompt, self.max_tokens))


def fits(prompt: Prompt, max_tokens: int | None) -> bool:
    """Return False for a prompt that is too long.

    Raises:
        UserError: it has no tokens.
    """
    if not prompt.token_ids:
        raise UserError(f"prompt {prompt.id} is an empty text, which a model cannot continue: leave it out")
    return max_tokens is None or len(prompt.token_ids) <= max_tokens


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

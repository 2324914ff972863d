"""A Hugging Face tokenizer with its chat template and the tokens that end a completion."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from refinerl.errors import UserError
from refinerl.records import Message


class ChatTokenizer:
    """A tokenizer for prompts and completions.

    Attributes:
        eos_token_ids: all tokens that end a completion: the tokenizer's own EOS and those of the model's generation
            configuration, or else of its configuration.
        eos_token_id: the tokenizer's own EOS, which is appended where a text is ended by us.
        special_token_ids: tokens that are not text and are left out by `decode`, and every EOS.
        pad_token_id: the padding, never attended to; the EOS if the tokenizer has no padding token.
    """

    eos_token_id: int
    eos_token_ids: frozenset[int]
    special_token_ids: frozenset[int]
    pad_token_id: int

    def __init__(
        self,
        inner: PreTrainedTokenizerBase,
        *,
        extra_eos_ids: Iterable[int] = (),
        date: datetime.date | None = None,
    ) -> None:
        own: int | None = inner.eos_token_id
        ids = list(dict.fromkeys([*([] if own is None else [own]), *extra_eos_ids]))
        if not ids:
            raise UserError("the tokenizer names no end-of-sequence token, so no completion could ever end")
        self.inner = inner
        self._date = date
        self.eos_token_id = ids[0]
        self.eos_token_ids = frozenset(ids)
        marked = [number for number, token in inner.added_tokens_decoder.items() if token.special]
        self.special_token_ids = frozenset([*ids, *inner.all_special_ids, *marked])
        self.pad_token_id = ids[0] if inner.pad_token_id is None else inner.pad_token_id

    @classmethod
    def load(
        cls, name: str | Path, *, chat_template: str | Path | None = None, date: datetime.date | None = None
    ) -> ChatTokenizer:
        """Load the tokenizer of a model's folder or hub id.

        `chat_template` replaces the tokenizer's own: the template itself (Jinja), or the path of a file that holds it.
        `date` is the day that a template prints which asks for the current one, as Llama 3.2's does; None: today.

        Raises:
            UserError: there is no such folder or hub id, or no tokenizer in it.
        """
        try:
            inner = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"cannot load a tokenizer from {str(name)!r}: give the folder of a saved model or a hub id ({reason})"
            ) from error
        if chat_template is not None:
            inner.chat_template = _template(chat_template)
        return cls(inner, extra_eos_ids=_generation_eos(name), date=date)

    @classmethod
    def of(
        cls,
        inner: PreTrainedTokenizerBase,
        model: Any = None,
        *,
        chat_template: str | Path | None = None,
        date: datetime.date | None = None,
    ) -> ChatTokenizer:
        """Wrap a copy of a tokenizer in memory; the EOS tokens of `model` (an object or a name) are added to its own.

        Raises:
            UserError: as `load`.
        """
        inner = copy.deepcopy(inner)
        if chat_template is not None:
            inner.chat_template = _template(chat_template)
        if model is None or isinstance(model, str | Path):
            return cls(inner, extra_eos_ids=[] if model is None else _generation_eos(model), date=date)
        configured = getattr(model.generation_config, "eos_token_id", None) or getattr(
            model.config, "eos_token_id", None
        )
        return cls(inner, extra_eos_ids=_listed(configured), date=date)

    def encode_bare(self, text: str) -> tuple[int, ...]:
        """Encode a text without a chat template, with the tokens that begin one unless it has them."""
        ids = self.encode(text)
        return ids if ids[: len(self.beginning)] == self.beginning else self.beginning + ids

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Encode a conversation with the chat template, up to the start of the assistant's answer.

        Raises:
            UserError: the tokenizer has no chat template, or the template refuses these messages.
        """
        ids: list[int] = self._render(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        return tuple(ids)

    @property
    def chats(self) -> bool:
        """True if there is a chat template; models without further training than on texts often have none."""
        return bool(self.inner.chat_template)

    def encode_request(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Encode a request with the chat template; without one, as the messages' bare text.

        Raises:
            UserError: the template refuses these messages.
        """
        if self.chats:
            return self.encode_chat(messages)
        return self.encode_bare("\n\n".join(message["content"] for message in messages))

    def encode_answered(self, messages: Sequence[Message], *, close: bool = False) -> tuple[int, ...]:
        """Encode a whole conversation with its last answer, for a reward model.

        `close` ends it as OpenRLHF trains its reward models: without the template's line breaks, and with the EOS,
        after a space where the template does not end with it.

        Raises:
            UserError: as `encode_chat`.
        """
        text: str = self._render(messages, tokenize=False, add_generation_prompt=False)
        if close:
            eos = self.inner.convert_ids_to_tokens(self.eos_token_id)
            text = text.rstrip("\n")
            text = text if text.endswith(eos) else f"{text} {eos}"
        return self.encode(text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Encode a text without adding special tokens."""
        return tuple(self.inner.encode(text, add_special_tokens=False))

    @property
    def beginning(self) -> tuple[int, ...]:
        """The tokens that the tokenizer puts before a bare text: for most models the BOS, if they have one."""
        bare, whole = self.encode("a"), tuple(self.inner.encode("a"))
        return whole[: whole.index(bare[0])] if bare and bare[0] in whole else ()

    def decode(self, ids: Sequence[int]) -> str:
        """Decode tokens, without special ones; incomplete UTF-8 becomes U+FFFD."""
        text: str = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _render(self, messages: Sequence[Message], **options: Any) -> Any:
        if not self.inner.chat_template:
            raise UserError(
                f"the tokenizer of {self.inner.name_or_path!r} has no chat template: give one with chat_template= "
                "(reward_model.chat_template= for a reward model, refiner.chat_template= for refiner.model; a Jinja "
                "template, or a file that holds one), or use "
                "an instruct model"
            )
        if self._date is not None:  # stands in the place of transformers' function of this name
            options["strftime_now"] = self._date.strftime
        try:
            return self.inner.apply_chat_template([dict(message) for message in messages], **options)
        except Exception as error:  # Jinja's own errors and those a template raises
            raise UserError(f"the chat template cannot render these messages: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer with its chat template, for `load`."""
        self.inner.save_pretrained(folder)


def _template(source: str | Path) -> str:
    """Return `source` if it is a template, the contents of the file if it is a path."""
    text = str(source)
    if isinstance(source, str) and ("{" in text or "\n" in text):
        return text
    try:
        return Path(text).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"chat_template must be a Jinja template or a readable file, got {text!r}") from error


def _generation_eos(name: str | Path) -> list[int]:
    try:
        value: Any = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:  # no generation_config.json: the model's own configuration names them
        try:
            value = AutoConfig.from_pretrained(name).eos_token_id
        except (OSError, ValueError, AttributeError):  # a tokenizer without a model
            return []
    return _listed(value)


def _listed(value: Any) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)

"""Prompts of the dialogue task: JSON, a file or folder that `datasets` reads, a data set of the hub, or a stream."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, overload

from refinerl.data import countdown, hub
from refinerl.data.jsonlines import json_rows, kind
from refinerl.data.tables import has_splits, is_table, load_table
from refinerl.errors import UserError
from refinerl.records import Message

COLUMNS = ("prompt", "context_messages", "messages")
"""Columns that may hold the prompts, in order of preference: TRL's, Prompt-Collection's, whole conversations."""

HUB = hub.PREFIX
"""Prefix of a path that names a data set of the hub, `hub:OWNER/NAME`, or one of its files, `hub:OWNER/NAME/FILE`."""


@dataclass(frozen=True)
class Dialogue:
    """A prompt of a data set, with the values of the other columns."""

    id: str
    prompt: str | tuple[Message, ...]
    columns: Mapping[str, Any]


BUFFER = 1000
"""Number of rows of a stream that are in memory at a time, among which it is shuffled."""


class StreamedDialogues:
    """Dialogues that are read on demand, pass by pass, from a data set whose length may be unknown.

    Args:
        where: the data's name in messages.
        rows: a `datasets.IterableDataset`, or anything that can be iterated over several times.
        column: the column of the prompts; None: the first of `COLUMNS` that a row has.
    """

    def __init__(self, where: str, rows: Any, column: str | None = None) -> None:
        self._where, self._rows, self._column = where, rows, column

    def first(self, count: int = BUFFER) -> list[Dialogue]:
        """Return the first dialogues, in the data's order.

        Raises:
            UserError: there are none, or one cannot be used.
        """
        found = list(islice(self._read(), count))
        if not found:
            raise UserError(f"{self._where} is empty: it has no rows")
        return found

    def shuffled(self, seed: int, number: int) -> Iterator[Dialogue]:
        """Read pass `number`, in an order that depends on both numbers: each dialogue is drawn from the next `BUFFER`.

        Raises:
            UserError: a row cannot be used.
        """
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(number)
        draw = random.Random(f"{seed}/{number}")
        held: list[Dialogue] = []
        for dialogue in self._read():
            if len(held) < BUFFER:
                held.append(dialogue)
                continue
            chosen = draw.randrange(BUFFER)
            yield held[chosen]
            held[chosen] = dialogue
        draw.shuffle(held)
        yield from held

    def _read(self) -> Iterator[Dialogue]:
        for number, row in enumerate(self._rows):
            name = _column_of(self._where, row, self._column)
            yield _dialogue(f"{self._where} row {number}", str(number), row, name)


Dialogues: TypeAlias = Sequence[Dialogue] | StreamedDialogues


def read_dialogues(
    path: str | Path,
    *,
    column: str | None = None,
    split: str = "train",
    subset: str | None = None,
    streaming: bool = False,
) -> Dialogues:
    """Read the dialogues of a file, a folder or a data set of the hub (`hub:OWNER/NAME` or `hub:OWNER/NAME/FILE`).

    A prompt is a text or a list of messages (`role`, `content`). It is read from `column`, or from the first of
    `COLUMNS` that the data has; all other fields are columns for reward functions. If a conversation in `messages`
    ends with an answer, the answer is dropped. An id is the number of the line or row. JSON lines and JSON arrays are
    read at once; everything else is read by `datasets`, row by row on access. Streams are always read by `datasets`.
    The names of `refinerl.data.countdown` are known too.

    Raises:
        UserError: the data cannot be read, is empty, has no such column, split or subset, or needs to run a script; a
            line is not JSON, or its prompt cannot be used. The message names file and line.
    """
    if str(path) in countdown.NAMES:
        return dialogues_of(countdown.rows(str(path)), column=column)
    if str(path).startswith(HUB) and str(path).count("/") > 1:  # one file of a repository
        path = hub.local(str(path))
    _check_address(str(path))
    if streaming:
        rows = load_table(str(path), split=split, subset=subset, streaming=True)
        return StreamedDialogues(str(path), rows, column)
    if is_table(str(path)):
        return _Table(str(path), load_table(str(path), split=split, subset=subset), column, split)
    dialogues = []
    for where, row in json_rows(Path(path)):
        name = column or next((name for name in COLUMNS if name in row), "prompt")
        if name not in row:
            known = f"; the line has {', '.join(row)}" if row else ""
            raise UserError(f"{where}: the field {name} is missing{known}{_advice(column)}")
        dialogues.append(_dialogue(where, _NUMBER.findall(where)[0], row, name))
    if not dialogues:
        raise UserError(f"{path} is empty: it has no lines")
    return dialogues


def _check_address(path: str) -> None:
    """Refuse a web address, and a name of the hub without its prefix.

    Raises:
        UserError: it is one; the message has the name to write.
    """
    bare = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not Path(path).suffix and not os.path.exists(path)
    if "://" in path or ":/" in path or bare:
        name = "/".join(re.sub(r"^\w+:/+[^/]*/(datasets/)?", "", path).split("/")[:2])
        raise UserError(
            f"there is no file or folder {path}; a data set of the hub is named by hub: in front, as hub:{name}"
        )


_NUMBER = re.compile(r"\d+$")


def dialogues_of(rows: Any, *, column: str | None = None) -> Dialogues:
    """Read dialogues from objects: a `datasets.Dataset` or `IterableDataset`, or mappings and texts.

    A text is a prompt without other columns; otherwise as in `read_dialogues`. A Dataset is not copied, and an
    IterableDataset is streamed. Error messages count rows from 0.

    Raises:
        UserError: there are no rows; a row is neither a mapping nor a text, lacks the column, or has a prompt that
            cannot be used; a data set has splits.

    >>> first, second = dialogues_of(["Hi", {"prompt": "2 + 2?", "answer": "4"}])
    >>> second.prompt, dict(second.columns)
    ('2 + 2?', {'answer': '4'})
    """
    if hasattr(rows, "column_names"):
        if isinstance(rows.column_names, Mapping):
            splits = list(rows)
            raise UserError(f"prompts has the splits {', '.join(splits)}: give one of them, prompts[{splits[0]!r}]")
        if not hasattr(rows, "__len__"):
            return StreamedDialogues("prompts", rows, column)
        if not len(rows):
            raise UserError("prompts is empty: it has no rows")
        return _Table("prompts", rows, column, "rows")
    dialogues = []
    for number, row in enumerate(rows):
        where = f"prompts[{number}]"
        if not isinstance(row, str | Mapping):
            raise UserError(
                f"{where} must be a text or a row (a dict with the column prompt), got {type(row).__name__}"
            )
        plain: Mapping[str, Any] = {"prompt": row} if isinstance(row, str) else row
        name = column or next((name for name in COLUMNS if name in plain), "prompt")
        if name not in plain:
            raise UserError(f"{where} has no column {name}; it has {', '.join(plain) or 'none'}{_advice(column)}")
        dialogues.append(_dialogue(where, str(number), plain, name))
    if not dialogues:
        raise UserError("prompts is empty: it has no rows")
    return dialogues


class _Table(Sequence[Dialogue]):
    """The rows of an Arrow table, which stays on disk."""

    def __init__(self, path: str, rows: Any, column: str | None, split: str) -> None:
        self._path, self._rows, self._split = path, rows, split
        self._column = _column_of(path, list(rows.column_names), column)
        if not len(rows):
            raise UserError(
                f"{path}: its split {split} is empty" if has_splits(path) else f"{path} is empty: it has no rows"
            )

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Dialogue]: ...
    def __getitem__(self, index: int | slice) -> Dialogue | Sequence[Dialogue]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number = index % len(self)
        return _dialogue(f"{self._path}[{self._split}] row {number}", str(number), self._rows[number], self._column)

    def __iter__(self) -> Iterator[Dialogue]:
        for number, row in enumerate(self._rows):
            yield _dialogue(f"{self._path}[{self._split}] row {number}", str(number), row, self._column)


def _column_of(where: str, names: Collection[str], column: str | None) -> str:
    """Return the column of the prompts among those that the data have."""
    found = column if column in names else next((name for name in COLUMNS if name in names), None)
    if found is None or (column is not None and found != column):
        wanted = column or " or ".join(COLUMNS)
        raise UserError(f"{where} has no column {wanted}; it has {', '.join(names)}{_advice(column)}")
    return found


def _advice(column: str | None) -> str:
    return "" if column else "; name the column of the prompts with task.column"


def _dialogue(where: str, number: str, row: Mapping[str, Any], name: str) -> Dialogue:
    columns = {key: value for key, value in row.items() if key != name}
    return Dialogue(number, _prompt(where, name, row[name]), columns)


def _prompt(where: str, name: str, prompt: Any) -> str | tuple[Message, ...]:
    if isinstance(prompt, str):
        return _text(where, name, prompt)
    if isinstance(prompt, tuple) or hasattr(prompt, "tolist"):  # an array, as pandas reads lists from Parquet
        prompt = list(prompt)
    if not isinstance(prompt, list) or not prompt:
        raise UserError(f"{where}: the field {name} must be a text or a list of messages, got {kind(prompt)}")
    for index, message in enumerate(prompt):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise UserError(f"{where}: {name}[{index}] must be a message with the texts role and content")
    turns = [{"role": m["role"], "content": _text(where, name, m["content"])} for m in prompt]
    if name == "messages" and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns or turns[-1]["role"] != "user":
        got = turns[-1]["role"] if turns else "none"
        raise UserError(f"{where}: the last message of the {name} must be the user's, got {got}")
    return tuple(turns)


def _text(where: str, name: str, text: str) -> str:
    """Return a text that has a form in UTF-8, which tokenizers and files need."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: the field {name} holds half of a surrogate pair, at {error.start}") from None
    return text

"""Readers of JSON from users; every error names the file and the line."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from refinerl.errors import UserError


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines, or of one array of JSON objects, as (`file:line` or `file, item N`, object) pairs.

    A file whose name ends in .gz is decompressed. Items are counted from 1.

    Raises:
        UserError: the file cannot be read; a line or an item is not a JSON object.
    """
    if path.suffix != ".gz":
        try:
            with path.open("rb") as file:
                start = file.read(4096)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if not _ARRAY.match(start):
            yield from json_lines(path)
            return
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not _ARRAY.match(data):
        yield from _objects(path, io.BytesIO(data))
        return
    for number, item in enumerate(parse(str(path), decoded(str(path), data.removeprefix(_BOM))), start=1):
        if not isinstance(item, dict):
            raise UserError(f"{path}, item {number}: an item must be a JSON object, got {kind(item)}")
        yield f"{path}, item {number}", item


_BOM = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of JSON lines as (`file:line`, object) pairs; blank lines are skipped.

    Raises:
        UserError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            yield from _objects(path, file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _objects(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        text = decoded(where, line.removeprefix(_BOM) if number == 1 else line)
        if not text.strip():
            continue
        row = parse(where, text)
        if not isinstance(row, dict):
            raise UserError(f"{where}: a line must be a JSON object, got {kind(row)}")
        yield where, row


def parse(where: str, text: str) -> Any:
    """Parse JSON whose integers may have any number of digits.

    Python's own limit on the digits of an integer (`sys.set_int_max_str_digits`, 4,300) holds for the whole process,
    so it is left alone.

    Raises:
        UserError: the text is not JSON; the message begins with `where`.

    >>> parse("row 1", '{"answer": 1e3}')
    {'answer': 1000.0}
    """
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return json.loads(text, parse_int=parse_int)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON nested too deeply") from error


def parse_int(digits: str) -> int:
    """Compute `int(digits)` without the limit of 4,300 digits, in less than quadratic time.

    >>> parse_int("9" * 5000) == 10**5000 - 1
    True
    """
    if digits.startswith("-"):
        return -parse_int(digits[1:])
    if len(digits) <= 512:  # below the smallest limit that can be set, 640
        return int(digits)
    half = len(digits) // 2
    shift: int = 10**half
    return parse_int(digits[:-half]) * shift + parse_int(digits[-half:])


def decoded(where: str, data: bytes) -> str:
    """Decode bytes as UTF-8.

    Raises:
        UserError: they are not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text (byte {error.start} of it)") from error


def kind(value: Any) -> str:
    """Name a value's JSON type, for messages."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")

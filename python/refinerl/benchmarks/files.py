"""Files of benchmarks: finding, reading and verifying them."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinerl.data.jsonlines import decoded, kind, parse
from refinerl.errors import UserError

KNOWN = {
    "HumanEval.jsonl": "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
    "HumanEvalPlus.jsonl": "42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f",
    "HumanEvalPlus-NoExtreme.jsonl": "3c5aa88735e442f327030f7097f9443ee173419e0db2a75b1c12730415398e88",
    "MbppPlus.jsonl": "b54e762755248ca411b523c917fa9f93c07b5ff2966bf60b3917b853926a3dad",
    "MbppPlus-NoExtreme.jsonl": "2682a29850fb17185106b2f40e72d1ebe7091b7393c576cff71b60e83c42ed33",
    "mbpp.jsonl": "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    "sanitized-mbpp.json": "7fec016546acaee11dbe14f9f0bb670e59f41919f7b522a59fba34871da78551",
}
"""SHA-256 of the unpacked text: HumanEval v2 (2021-07-05), HumanEval+ v0.1.10, MBPP+ v0.2.0, MBPP as published."""


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    path: Path
    digest: str
    """SHA-256 of the text."""
    rows: tuple[tuple[str, dict[str, Any]], ...]
    """(`file:line`, object) pairs."""


def find(data: Path, folder: str, names: Sequence[str]) -> list[Path]:
    """Find the files `names` that are in `data/folder` or in `data`, compressed or not, in the order of `names`."""
    homes = [data / folder, data]
    places = [home / f"{name}{suffix}" for name in names for home in homes for suffix in ("", ".gz")]
    return [place for place in places if place.is_file()]


def read(path: Path, columns: Sequence[str], *, unverified: bool) -> Table:
    """Read a file of JSON lines or a JSON list, compressed by gzip or not.

    Args:
        columns: those that every row must have.
        unverified: accept another version of the file than the known one.

    Raises:
        UserError: the file cannot be read, a row lacks a column, an id occurs twice, or the file is another version.
    """
    text = text_of(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if path.name.removesuffix(".gz").endswith(".json"):
        values = parse(str(path), text)
        if not isinstance(values, list):
            raise UserError(f"{path}: it must be a JSON list, got {kind(values)}")
        rows = [(f"{path}, item {number}", row) for number, row in enumerate(values, start=1)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [(f"{path}:{n}", parse(f"{path}:{n}", line)) for n, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no rows")
    seen: dict[str, str] = {}
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: a row must be a JSON object, got {kind(row)}")
        missing = [column for column in columns if column not in row]
        if missing:
            raise UserError(f"{where}: the column {missing[0]} is missing; there are {', '.join(row) or 'none'}")
        number = json.dumps(row["task_id"])
        if number in seen:
            raise UserError(f"{where}: the task_id {number} was used before, at {seen[number]}")
        seen[number] = where
    known = KNOWN[path.name.removesuffix(".gz")]
    if digest != known and not unverified:
        raise UserError(
            f"{path} is of another version than the known one: its text has SHA-256 {digest}, not {known}; "
            "--unverified accepts it, and the summary says so"
        )
    return Table(path, digest, tuple(rows))


def text_of(path: Path) -> str:
    """Read a file's text; a file whose name ends in .gz is decompressed.

    Raises:
        UserError: the file cannot be read, decompressed or decoded.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return decoded(str(path), data)


def field(where: str, row: dict[str, Any], name: str, wanted: type) -> Any:
    """Return the value of a column, which must have the given type.

    Raises:
        UserError: the value has another type.
    """
    value = row[name]
    if not isinstance(value, wanted):
        raise UserError(f"{where}: the column {name} must be {kind(wanted())}, got {kind(value)}")
    return value

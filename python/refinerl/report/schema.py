"""The versions of a run's files, and their lines, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError

SCHEMA = 1
"""The version of metrics.jsonl."""
ROLLOUTS = 2
"""The version of rollouts/step-N.jsonl that is written."""
OLDER = 1
"""An earlier version, which is read too: it lacks advantages, failing tests, and the logprobs of tokens."""


def lines(path: Path, schemas: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read (`file:line`, object) pairs, and refuse those of other schemas."""
    for where, row in json_lines(path):
        check_schema(where, row, schemas)
        yield where, row


def check_schema(where: str, row: Mapping[str, Any], schemas: Sequence[int]) -> None:
    """Refuse a row whose schema is none of these.

    Raises:
        UserError: another version of refinerl wrote the row.
    """
    if row.get("schema") not in schemas:
        known = " and ".join(map(str, schemas))
        raise UserError(
            f"{where} has schema {row.get('schema')}, this version of refinerl reads {known}: another one wrote it"
        )

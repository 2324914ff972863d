"""Files of runs that go on, or were killed: a last line that is cut off is noted and left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.report.metrics import metrics_from_json
from refinerl.report.schema import SCHEMA, check_schema


def metrics(run: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Read metrics.jsonl as `read_metrics` does; a last line that is cut off becomes a note.

    Raises:
        UserError: the file cannot be read, another line is damaged, or another version of refinerl wrote it.
    """
    file = run / "metrics.jsonl"
    if not file.exists():
        notes.append("There is no metrics.jsonl.")
        return []
    return [metrics_from_json(where, row) for where, row in lines(file, (SCHEMA,), notes)]


def lines(path: Path, schemas: Sequence[int], notes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read (`file:line`, object) pairs; note a last line that is cut off, as a run that was killed leaves it.

    Raises:
        UserError: as `metrics`.
    """
    found = json_lines(path)
    while True:
        try:
            where, row = next(found)
        except StopIteration:
            return
        except UserError as error:
            if not str(error).startswith(f"{path}:{_last(path)}: "):
                raise
            notes.append(f"The last line of {path.relative_to(path.parents[_depth(path)])} is cut off and left out.")
            return
        check_schema(where, row, schemas)
        yield where, row


def _depth(path: Path) -> int:
    return 1 if path.parent.name == "rollouts" else 0


def _last(path: Path) -> int:
    """Return the number of the last line that is not blank; 0 if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return max((number for number, line in enumerate(file, start=1) if line.strip()), default=0)
    except OSError:
        return 0

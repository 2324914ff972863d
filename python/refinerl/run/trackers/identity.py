"""The file `trackers.json` of a run's folder: what a resumed run continues in its trackers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from refinerl.data.files import write
from refinerl.data.jsonlines import parse
from refinerl.errors import UserError

SCHEMA = 1
IDS = "trackers.json"
_lock = threading.Lock()
"""Each tracker has a thread, and all write the file."""


class Identity:
    """A run's entry in `trackers.json`: its place in one tracker, and the last step that was sent there.

    Trackers cannot take a step back, so steps that an earlier start has sent are not sent again.

    Args:
        folder: the run's.
        tracker: the tracker's name.

    Raises:
        UserError: the file cannot be read, or another version wrote it.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        self._path, self._tracker = folder / IDS, tracker
        self.known: dict[str, Any] | None = _read(self._path).get(tracker)
        """The entry of an earlier start; None if there was none."""
        self._sent = int((self.known or {}).get("step", 0))
        self._entry: dict[str, Any] = {}

    def begin(self, **entry: Any) -> None:
        """Set the run's place in the tracker. It is written with the first step: a run without one leaves no file."""
        self._entry = entry

    def was_sent(self, step: int) -> bool:
        """Return True if an earlier start has sent a step."""
        known = self.known is not None
        return known and step <= self._sent

    def sent(self, step: int) -> None:
        """Record that a step's metrics were sent. Step 0, the evaluation before training, is not recorded."""
        if step:
            with _lock:
                entries = _read(self._path) | {self._tracker: {**self._entry, "step": step}}
                write(self._path, json.dumps({"schema": SCHEMA, **entries}, indent=1, default=str) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    found = parse(str(path), text)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not all(map(_is_entry, found.items())):
        raise UserError(
            f"{path} was not written by this version of refinerl: delete it to begin new runs in the trackers"
        )
    return found


def _is_entry(item: tuple[str, Any]) -> bool:
    """Return True for the schema, and for a tracker with its entry."""
    name, entry = item
    return name == "schema" or (isinstance(entry, dict) and isinstance(entry.get("step", 0), int))

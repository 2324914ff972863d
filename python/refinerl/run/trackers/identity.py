"""The file `trackers.json` of a run's folder: what a resumed run continues in its trackers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
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
    """A run's entry in `trackers.json`: its place in one tracker, the last step that was sent, and gaps before it.

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
        entry = self.known or {}
        self._last = int(entry.get("step", 0))
        self._lacking = {step for first, last in entry.get("lacking", []) for step in range(first, last + 1)}
        self._before = self._last, frozenset(self._lacking)
        """The last step and the gaps of earlier starts."""
        self._entry: dict[str, Any] = {}

    def begin(self, **entry: Any) -> None:
        """Set the run's place in the tracker. It is written with the first step: a run without one leaves no file."""
        self._entry = entry

    def was_sent(self, step: int) -> bool:
        """Return True if an earlier start has sent a step."""
        return not self.is_new(step) and step not in self._before[1]

    def is_new(self, step: int) -> bool:
        """Return True if a step is after all that an earlier start has sent."""
        return self.known is None or step > self._before[0]

    def sent(self, step: int) -> None:
        """Record that a step's metrics were sent. Step 0, the evaluation before training, is not recorded.

        Steps between the last one and this one are lacking until they are sent too.
        """
        if not step:
            return
        self._lacking |= set(range(self._last + 1, step))
        self._lacking.discard(step)
        self._last = max(self._last, step)
        entry = {**self._entry, "step": self._last}
        if self._lacking:
            entry["lacking"] = _ranges(self._lacking)
        with _lock:
            entries = _read(self._path) | {self._tracker: entry}
            write(self._path, json.dumps({"schema": SCHEMA, **entries}, indent=1, default=str) + "\n")


def _ranges(steps: Iterable[int]) -> list[list[int]]:
    """Write steps as the first and the last of each range.

    >>> _ranges({4, 7, 8, 9})
    [[4, 4], [7, 9]]
    """
    found: list[list[int]] = []
    for step in sorted(steps):
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return found


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
    if name == "schema":
        return True
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("step", 0), int)
        and isinstance(entry.get("lacking", []), list)
        and all(map(_is_range, entry.get("lacking", [])))
    )


def _is_range(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(isinstance(step, int) for step in found)

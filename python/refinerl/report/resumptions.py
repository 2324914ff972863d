"""resumed.json: the steps after which a run was resumed. A run that was never interrupted has no such file."""

from __future__ import annotations

import json
from pathlib import Path

from refinerl.data.files import write
from refinerl.data.jsonlines import parse
from refinerl.errors import UserError

SCHEMA = 1
NAME = "resumed.json"


def resumptions(run: Path) -> list[int]:
    """Return the steps after which a run was resumed, in order, without those that it has repeated since.

    Raises:
        UserError: the file cannot be read, or another version of refinerl wrote it.
    """
    path = run / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    found = parse(str(path), text)
    after = found.get("after") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
    if not isinstance(after, list) or not all(type(step) is int for step in after):
        raise UserError(f"{path} was not written by this version of refinerl: delete it, and the page does without it")
    return after


def note(run: Path, step: int) -> None:
    """Note that a run is resumed after a step; later ones are repeated. After step 0 the run begins anew.

    Raises:
        UserError: as `resumptions`.
    """
    before = [earlier for earlier in resumptions(run) if earlier < step]
    if step:
        write(run / NAME, json.dumps({"schema": SCHEMA, "after": [*before, step]}) + "\n")
    else:
        (run / NAME).unlink(missing_ok=True)


def described(steps: list[int]) -> str:
    """Write where a run was resumed, as sentences.

    >>> described([2, 5, 9])
    'The run was resumed after steps 2, 5 and 9. Each step is shown once, as it was taken last.'
    """
    *others, last = map(str, steps)
    named = f"steps {', '.join(others)} and {last}" if others else f"step {last}"
    return f"The run was resumed after {named}. Each step is shown once, as it was taken last."

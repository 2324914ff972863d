"""Text for a terminal: text of models and programs made safe, durations, and the last words of a command."""

from __future__ import annotations

import sys
from collections.abc import Callable

from refinerl.errors import TrainingStoppedError, UserError


def answered(command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Call a command of a single process; return its exit code.

    A mistake of the user's, a reason to stop and Ctrl-C end it with one sentence on standard error and the codes 2, 1
    and 130. Runs, which may have several ranks, end by `refinerl.run.launch`.

    Args:
        command: returns its exit code.
        interrupted: what Ctrl-C leaves behind.
    """
    try:
        return command()
    except UserError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return 2
    except TrainingStoppedError as error:
        print(f"stopped: {safe(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130


def visible(character: str) -> str:
    r"""Escape a character that a terminal would obey, since programs choose what they print.

    >>> print("".join(map(visible, "red: \x1b[31m")))
    red: \x1b[31m
    """
    return character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()


def safe(text: str) -> str:
    r"""Escape what a terminal would obey, except line breaks.

    >>> print(safe("one\ntwo\x07"))
    one
    two\x07
    """
    return "\n".join("".join(map(visible, line)) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """Write a duration in at most two units.

    >>> [duration(seconds) for seconds in (3.2, 59.6, 150, 7260, 200_000)]
    ['3 s', '1 min', '2 min', '2 h 1 min', '2 d 7 h']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"

"""Exceptions and an early Ctrl-C, which commands report without a traceback; similar names, commands of pip."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from types import TracebackType


class UserError(Exception):
    """An input cannot be used. The message says which, and what would work.

    Commands print it without a traceback and exit with code 2.
    """


class TrainingStoppedError(RuntimeError):
    """A guard stopped the run, whose state was saved. The message says where and why. Commands exit with code 1."""


def report_early_interruption() -> None:
    """From now on report a Ctrl-C that nothing handles in one line; other exceptions have their traceback as before.

    A command calls it before it imports its libraries, which takes seconds.
    """
    sys.excepthook = _uncaught


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted before the command began", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def similar(word: str, known: Sequence[str], *, cutoff: float = 0.5) -> list[str]:
    """Return up to three known names that are like a wrong one: they begin with it, contain it, or are spelled alike.

    Args:
        word: the wrong name; of fewer than three letters only the spelling counts.
        known: the right ones.
        cutoff: how much of the spelling has to agree, as for `difflib.get_close_matches`.

    >>> similar("dapo", ["countdown", "gsm8k-dapo-dynamic", "apps-dapo"]), similar("smolm", ["demo", "smollm"])
    (['apps-dapo', 'gsm8k-dapo-dynamic'], ['smollm'])
    """
    part = word.casefold()
    names = [name for name in known if part in name.casefold()] if len(part) >= _PART else []
    names.sort(key=lambda name: (not name.casefold().startswith(part), len(name)))
    return list(dict.fromkeys([*names, *difflib.get_close_matches(word, known, n=3, cutoff=cutoff)]))[:3]


_PART = 3
"""Letters of a word that are enough to look for it within names; shorter ones are in too many."""


def closest(word: str, known: Sequence[str], *, cutoff: float = 0.5) -> str:
    """Name known words as `similar` does, as the end of a sentence; nothing if there is none."""
    found = similar(word, known, cutoff=cutoff)
    return f"; closest: {', '.join(found)}" if found else ""


def listed(mistakes: Sequence[str]) -> str:
    """Return the message of one mistake, or of several: their number, and a line for each.

    >>> print(listed(["seed must not be negative", "unknown key 'x'"]))
    2 mistakes:
      seed must not be negative
      unknown key 'x'
    """
    return mistakes[0] if len(mistakes) == 1 else "\n  ".join([f"{len(mistakes)} mistakes:", *mistakes])


def first_of(message: str) -> str:
    """Return the first of the mistakes that a message of `listed` lists; of any other message the first line."""
    lines = message.splitlines()
    return lines[1].strip() if lines[0].endswith(" mistakes:") else lines[0]


def pip_install(*packages: str) -> str:
    """Return the command that installs packages, in the releases that refinerl accepts.

    It names the packages and not an extra (`refinerl[report]`), because refinerl is not on PyPI: pip would not find it
    where it runs from a source tree.

    >>> pip_install("jinja2", "a-package-of-no-extra")
    "pip install 'jinja2>=3' a-package-of-no-extra"
    """
    return " ".join(["pip install", *(f"'{p}{RELEASES[p]}'" if p in RELEASES else p for p in packages)])


RELEASES = {
    "accelerate": ">=1",
    "datasets": ">=4",
    "deepspeed": ">=0.19,<0.20",
    "gguf": ">=0.17",
    "jinja2": ">=3",
    "math-verify": ">=0.8",
    "matplotlib": ">=3.8",
    "mlflow-skinny": ">=3.1",
    "peft": ">=0.17",
    "tensorboard": ">=2.16",
    "trackio": ">=0.25",
    "vllm": ">=0.32,<0.33",
    "wandb": ">=0.20",
}
"""Accepted releases of the optional packages, as in the extras of pyproject.toml."""

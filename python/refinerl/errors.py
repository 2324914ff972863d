"""The exceptions that commands report without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """An input cannot be used. The message says which, and what would work.

    Commands print it without a traceback and exit with code 2.
    """


class TrainingStoppedError(RuntimeError):
    """A guard stopped the run, whose state was saved. The message says where and why. Commands exit with code 1."""

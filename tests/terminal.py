"""A terminal for tests: a pseudo-terminal, and a screen on which a line that is too long is seen to be so.

The screen is wider and higher than the terminal says that it is, so that it wraps and scrolls nothing.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pyte
import pytest

ERASE = re.compile(rb"\r\x1b\[(?:2K|1A)")
"""What rich's live view begins with when it draws again, or ends: five bytes."""


class Terminal:
    """A pseudo-terminal of so many columns and lines, of which `file` is the end that programs write to.

    Args:
        watch: called with the lines of the screen whenever a live view is about to be erased, since it is whole then,
            in whatever chunks the output comes.
    """

    def __init__(self, columns: int, lines: int = 24, watch: Callable[[list[str]], Any] = lambda lines: None) -> None:
        self.columns, self.lines = columns, lines
        self.raw = b""
        self._watch = watch
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.file: TextIO = open(slave, "w", encoding="utf-8")  # noqa: SIM115
        self._screen = pyte.Screen(1000, 400)
        self._stream = pyte.ByteStream(self._screen)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            fed, self.raw = len(self.raw), self.raw + data
            for erase in ERASE.finditer(self.raw, max(0, fed - 4)):  # one may have begun in the chunk before
                self._stream.feed(self.raw[fed : erase.start()])
                fed = max(fed, erase.start())
                self._watch(self.shown())
            self._stream.feed(self.raw[fed:])

    def shown(self) -> list[str]:
        """Return the lines of the screen that are not empty."""
        drawn = self._screen.buffer
        lines = [drawn[y] for y in sorted(drawn) if drawn[y]]
        texts = ["".join(line[x].data for x in range(max(line) + 1)).rstrip() for line in lines]
        return [text for text in texts if text]

    @property
    def cursor_is_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def close(self) -> list[str]:
        """End the output; return the lines that are left on the screen."""
        self.file.close()
        self._reader.join(timeout=10)
        os.close(self._master)
        return self.shown()

    @contextmanager
    def standard(self, monkeypatch: pytest.MonkeyPatch, term: str = "xterm-256color") -> Iterator[None]:
        """Make it the terminal of this process in a context."""
        with monkeypatch.context() as patch:
            for name, value in {"TERM": term, "COLUMNS": str(self.columns), "LINES": str(self.lines)}.items():
                patch.setenv(name, value)
            for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "JUPYTER_COLUMNS"):
                patch.delenv(name, raising=False)
            patch.setattr(sys, "stdout", self.file)
            patch.setattr(sys, "stderr", self.file)
            yield

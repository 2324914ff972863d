"""Ctrl-C and SIGTERM during a run: it ends at once where its last complete step can be saved, else after the step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_DOUBLE = 1.0
"""Seconds within which a second signal is the same request: launchers pass on what the terminal has sent already."""

_DEFAULTS: dict[int, object] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
_NAMES = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}


class Interrupted(KeyboardInterrupt):
    """The end of a run that was asked for by a signal.

    Args:
        number: the signal's.
        standing: the clause that says where `--resume` continues; empty: not yet known.
    """

    def __init__(self, number: int, standing: str = "") -> None:
        super().__init__(f"{_NAMES[number]}; {standing}" if standing else "")
        self.number = number
        self.code = 128 + number
        """Exit code of the command: 130 after SIGINT, 143 after SIGTERM."""


class Interruption:
    """Requests to end a run: SIGINT, which Ctrl-C sends, and SIGTERM, which schedulers send.

    A request raises `Interrupted` in the main thread, except while something is held (`hold`): that is finished first,
    and a second request ends the run. Ranks that train together (`join`) raise only when they have agreed to, in
    `Keeper`, since otherwise the others would wait.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        """The number of the signal that has arrived, if one has."""
        self._together, self._tells = False, True
        self._when = -_DOUBLE
        self._held: str | None = None
        self._told = False
        self.show: Callable[[str], bool] = lambda text: False
        """Shows what is finished first, where a live view would hide it; returns False to have it written to stderr."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals in a context.

        A signal that something else handles or ignores is left alone, and so are both outside the main thread. Forked
        children get the default actions back.
        """
        handled: dict[int, Callable[..., object] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                if signal.getsignal(number) == default:
                    handled[number] = signal.signal(number, self._arrived)
        _handled.append(handled)
        try:
            yield
        finally:
            _handled.remove(handled)
            for number, before in handled.items():
                signal.signal(number, before)

    def join(self, *, tells: bool) -> None:
        """From now on wait for the other ranks. `tells` is True for the rank that says what is finished first."""
        self._together, self._tells = True, tells

    def hold(self, what: str) -> None:
        """Finish `what` before a request ends the run. `what` completes the sentence “… first”."""
        self._told, self._held = False, what

    def release(self) -> None:
        """End `hold`; `check` then raises if a request has arrived."""
        self._held = None

    def check(self) -> None:
        """Raise if a request has arrived, also if the user's code has caught the exception."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def ask(self, number: int) -> bool:
        """Record a request; return True if what is held will be finished, False if the run is to end at once."""
        now = time.monotonic()
        again = now - self._when > _DOUBLE
        first = self.asked is None
        self.asked = self.asked or int(number)
        if self._held is None and not self._together:
            return self._refuse(now) if again else True
        if first or not self._told:
            self._told, self._when = True, now
            self._tell(number)
            return True
        return self._refuse(now) if again else True

    def _refuse(self, now: float) -> bool:
        self._when = now
        return False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self.ask(number):
            raise Interrupted(number)

    def _tell(self, number: int) -> None:
        if not self._tells:
            return
        what = self._held or "the ranks finish the rollouts or the update that they are in and save"
        text = f"{_NAMES[number]}: {what} first; a second signal ends the run at once, without that"
        if not self.show(text):
            os.write(2, f"\n{text}\n".encode())  # `print` must not be called in a signal handler


_handled: list[dict[int, Callable[..., object] | int | None]] = []


def _in_child() -> None:
    for handled in _handled:
        for number, before in handled.items():
            signal.signal(number, before)
    _handled.clear()


os.register_at_fork(after_in_child=_in_child)

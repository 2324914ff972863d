"""A time limit for a call of the user's code, which may hang in anything that a signal interrupts."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2)
"""Not SIGALRM, which reward functions use for limits of their own."""

_AGAIN = 1.0
"""Seconds between signals to code that goes on after an exception."""

_GRACE = 10.0
"""Seconds after which code that no signal interrupts is given up."""


class TooLongError(Exception):
    """The call took too long."""


class _Interrupt(BaseException):
    """Raised inside the call: like KeyboardInterrupt it passes `except Exception`."""


def within(seconds: float, call: Callable[[], T], give_up: Callable[[], None] | None = None) -> T:
    """Return the result of `call`, which is interrupted after so many seconds.

    Only the main thread can be interrupted: in another thread there is no limit.

    Args:
        seconds: that it may take.
        call: the user's code.
        give_up: called from another thread where the code does not end although it was interrupted, as native code that
            never returns.

    Raises:
        TooLongError: it took too long.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    over = threading.Event()
    main = threading.get_ident()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise _Interrupt

    def watch() -> None:
        waited = 0.0
        pause = seconds
        while not over.wait(pause):
            signal.pthread_kill(main, _SIGNAL)
            waited, pause = waited + pause, _AGAIN
            if give_up is not None and waited > seconds + _GRACE:
                give_up()

    before = signal.signal(_SIGNAL, interrupt)
    watcher = threading.Thread(target=watch, daemon=True, name="time-limit")
    try:
        try:
            watcher.start()
            return call()
        finally:
            over.set()
    except _Interrupt:
        over.set()  # it may have come in the line above
        raise TooLongError from None
    finally:
        with contextlib.suppress(RuntimeError):  # it was never started
            watcher.join()  # it may be about to send the signal, which then meets a handler that does nothing
        signal.signal(_SIGNAL, before)

"""A time limit for calls of the user's code. It ends whatever a signal can interrupt."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2)
"""The signal that interrupts; not SIGALRM, which reward functions may use for their own time limits."""

_AGAIN = 1.0
"""Seconds until the next signal to code that caught the exception and continued."""

_GRACE = 10.0
"""Seconds after the limit until `give_up` is called, for code that no signal interrupts."""


class TooLongError(Exception):
    """A call that exceeded its time limit."""


class _Interrupt(BaseException):
    """The exception raised inside the call; like KeyboardInterrupt, `except Exception` does not catch it."""


def within(seconds: float, call: Callable[[], T], give_up: Callable[[], None] | None = None) -> T:
    """Return the result of `call`; interrupt it after `seconds`.

    Only the main thread can be interrupted, so there is no limit in any other thread.

    Args:
        seconds: the limit.
        call: calls the user's code.
        give_up: called from another thread if the code does not end although it was interrupted, such as native code
            that never returns.

    Raises:
        TooLongError: the call exceeded the limit.
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
        over.set()  # the signal may have arrived just before the line above
        raise TooLongError from None
    finally:
        with contextlib.suppress(RuntimeError):  # the thread was never started
            watcher.join()  # it may be about to send a signal, which our handler, still in place, ignores
        signal.signal(_SIGNAL, before)


def alarmed(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of `call`; interrupt it after `seconds`, even where it holds Python's global interpreter lock.

    The kernel's timer sends SIGALRM, which `re` notices within a match. `within` sends its signal from a thread, which
    would wait for the lock. Only the main thread can be interrupted. A timer of somebody else continues afterwards.

    Raises:
        TooLongError: the call exceeded the limit.
    """
    if math.isinf(seconds) or threading.current_thread() is not threading.main_thread():
        return call()
    over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over:
            raise _Interrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            return call()
        finally:
            over = True
    except _Interrupt:
        raise TooLongError from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)

"""Handling of SIGTERM in a thread, because a rank's main thread may be in a collective that does not return."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

_HANDLED = bytes(1)
"""The byte that the handler writes: no signal has the number 0."""

_listening = False
_masks = threading.local()


def listen(terminated: Callable[[], None]) -> Callable[[], None]:
    """Call `terminated` in a separate thread, once for each SIGTERM that arrives, instead of ending the process.

    Python runs signal handlers in the main thread between two bytecode instructions, and a blocked main thread never
    gets there. But the signal's number is written to a file descriptor at once (`signal.set_wakeup_fd`), from which the
    thread reads it. Forked children get the default action back. The signal is blocked during a fork: until a child has
    the default action, a signal to it would be written to the parent's descriptor.

    Does nothing outside the main thread, or if something else handles SIGTERM or has set the wake-up descriptor.

    Returns:
        A function that restores the default action; call it in the main thread.
    """
    global _listening
    here = threading.current_thread() is threading.main_thread()
    if not here or _listening or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return lambda: None
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        return lambda: None
    # The handler writes too, in case other code has replaced the wake-up descriptor since.
    signal.signal(signal.SIGTERM, lambda *_: writing.send(_HANDLED))
    signal.siginterrupt(signal.SIGTERM, False)
    _listening = True

    def watch() -> None:
        unhandled = 0  # signals whose handler has not run yet, which may take as long as the main thread is blocked
        while written := reading.recv(64):
            for byte in written:
                if byte == signal.SIGTERM:
                    unhandled += 1
                    terminated()
                elif byte == _HANDLED[0] and unhandled:
                    unhandled -= 1
                elif byte == _HANDLED[0]:
                    terminated()

    threading.Thread(target=watch, daemon=True, name="termination").start()

    def restore() -> None:
        _reset()
        writing.close()

    return restore


def _reset() -> None:
    global _listening
    if _listening:
        _listening = False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _before_fork() -> None:
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _listening else None


def _after_fork() -> None:
    if _masks.before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _in_child() -> None:
    _reset()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)

"""Whatever the user's code waits in, it ends at its limit; what ends in time is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from launching import environment
from refinerl.tasks.time_limit import TooLongError, within


def computes() -> None:
    while True:
        pass


def listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.accept()


def tries_again() -> None:
    while True:
        try:
            threading.Event().wait()
        except Exception:
            continue


def keeps_its_own_time() -> None:
    """As checkers of mathematics do."""
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.setitimer(signal.ITIMER_REAL, 0)
    threading.Lock().acquire()
    threading.Event().wait()


def awaits() -> None:
    asyncio.run(asyncio.sleep(3600))


@pytest.mark.parametrize(
    "hangs", [computes, listens, tries_again, keeps_its_own_time, awaits], ids=lambda f: f.__name__
)
def test_what_hangs_is_interrupted(hangs: Callable[[], None]) -> None:
    begun = time.monotonic()
    with pytest.raises(TooLongError):
        within(0.1, hangs)
    assert time.monotonic() - begun < 5


def fails() -> None:
    raise KeyError("its own")


def test_what_ends_in_time_is_left_alone() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    threads = threading.active_count()
    assert within(60, lambda: 3) == 3
    with pytest.raises(KeyError, match="its own"):
        within(60, fails)
    for _ in range(200):  # about as long as it takes to begin and to end
        with contextlib.suppress(TooLongError):
            within(0.0001, lambda: None)
    assert threading.active_count() == threads
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_another_thread_has_no_limit() -> None:
    """Python runs signal handlers in the main thread only."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(within(0.01, lambda: time.sleep(0.05))))
    thread.start()
    thread.join()
    assert ended == [None]


NATIVE = """
import ctypes, os
from refinerl.tasks import time_limit
time_limit._AGAIN, time_limit._GRACE = 0.05, 0.2
lock = ctypes.create_string_buffer(64)
library = ctypes.CDLL(None)
library.pthread_mutex_lock(lock)
time_limit.within(0.1, lambda: library.pthread_mutex_lock(lock), lambda: os._exit(7))
"""


def test_native_code_that_no_signal_ends_is_given_up() -> None:
    done = subprocess.run([sys.executable, "-c", NATIVE], env=environment(), timeout=60, check=False)
    assert done.returncode == 7

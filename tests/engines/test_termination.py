"""SIGTERM goes to a thread, unless somebody else handles it; `test_lifeline` sends it to real ranks."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from refinerl.engines.termination import listen


@pytest.fixture(autouse=True)
def default_action() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_signal_calls_the_function_and_the_process_goes_on():
    heard = threading.Event()
    restore = listen(heard.set)
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard.wait(10)
    restore()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_blocked_main_thread_is_no_obstacle():
    """As in a collective: the handler of Python's runs only after the wait."""
    heard = threading.Event()
    restore = listen(heard.set)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # so that another thread takes it
    try:
        assert heard.wait(10)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        restore()


def test_a_signal_to_a_blocked_main_thread_counts_once():
    """Its handler, which runs long after, is no second request, which would end the ranks without a checkpoint."""
    heard: list[int] = []
    restore = listen(lambda: heard.append(1))
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "termination")
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while not heard:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000)  # no bytecode runs meanwhile
    restore()
    thread.join()  # has read everything
    assert heard == [1]


def test_a_signal_is_heard_where_others_have_the_wake_up_descriptor():
    heard = threading.Event()
    restore = listen(heard.set)
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard.wait(10)
    restore()
    reading.close()
    writing.close()


def test_a_forked_child_dies_of_it_alone():
    """Also where the signal finds it before Python has done what follows a fork."""
    heard = threading.Event()
    restore = listen(heard.set)
    child = os.fork()
    if not child:
        time.sleep(10)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    restore()
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert not heard.wait(0.1)


def test_another_handler_stays_and_gets_the_signal():
    got = []
    signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    heard = threading.Event()
    restore = listen(heard.set)
    os.kill(os.getpid(), signal.SIGTERM)
    restore()
    assert got == [signal.SIGTERM]
    assert not heard.is_set()


def test_another_thread_than_the_main_one_cannot_listen():
    found = []
    thread = threading.Thread(target=lambda: found.append(listen(lambda: None)))
    thread.start()
    thread.join()
    found[0]()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

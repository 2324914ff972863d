"""A connection between the ranks, over which each learns that another has ended.

Collectives report a dead rank late or never: NCCL waits for its time-out, and a launcher only sees the processes of its
own machine. But the kernel closes the connections of a process that dies, however it dies, and keep-alive probes detect
a machine that vanished. So every rank holds a connection to rank 0. When one rank ends, all do, and the reason is
printed once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn, TextIO

from refinerl.engines import termination
from refinerl.engines.launched import Launched

_KEY = "refinerl/lifeline"
_START = 300.0
"""Seconds within which all ranks must have started."""

_NEWS = 3.0
"""Seconds that a terminated rank waits for the news of another rank's end, for which a launcher terminates the others.

The news has arrived by then; on a busy machine it takes a moment until it is read."""

_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that vanished is noticed after 30 seconds."""


class Lifeline:
    """One rank's end of the connection. Its threads end the process, by `os._exit`, when another rank has ended.

    Args:
        launched: this process's place among the ranks.
        store: the store in which rank 0 publishes its port.
    """

    def __init__(self, launched: Launched, store: Any) -> None:
        self.timeout = 0.0
        """Seconds after which a collective fails if a rank has not joined it; 0 before there are collectives."""
        self._rank = launched.rank
        self._phases: dict[int, tuple[str, float]] = {}
        self._ending = threading.Lock()
        self._ended = threading.Event()
        self._closing = False
        self._peers: dict[int, socket.socket] = {}
        if launched.rank == 0:
            listener = socket.create_server(("", 0), backlog=launched.size)
            listener.settimeout(_START)
            store.set(_KEY, str(listener.getsockname()[1]))
            for _ in range(launched.size - 1):
                connection, _ = listener.accept()
                connection.settimeout(None)
                words = connection.makefile("r")
                self._watch(int(json.loads(words.readline())["rank"]), connection, words)
            listener.close()
        else:
            port = int(store.get(_KEY))
            connection = socket.create_connection((launched.address, port), timeout=_START)
            connection.settimeout(None)
            _send(connection, {"rank": launched.rank})
            self._watch(0, connection, connection.makefile("r"))
        self._restore_sigterm = termination.listen(self._terminated)

    def phase(self, name: str) -> None:
        """Announce what this rank is doing, for the message should it die."""
        self._phases[self._rank] = name, time.monotonic()
        for connection in self._peers.values():
            _send(connection, {"phase": name})

    def wait(self) -> None:
        """Wait a few seconds for the news of another rank's end, in case this one's failure is an echo of it.

        Returns only where there is none: the news ends the process.
        """
        self._await_end(5)

    def fail(self, message: str, code: int) -> NoReturn:
        """End all ranks with this exit code; the message is printed once, by rank 0."""
        if self._rank == 0:
            self._end(message, code)
        _send(self._peers[0], {"failed": message, "code": code})
        self._await_end(10)  # rank 0's answer ends this process
        _exit(code)

    def close(self) -> None:
        """Announce that the run has ended well here, so that the others go on when this process ends."""
        self._closing = True
        self._restore_sigterm()
        for connection in self._peers.values():
            _send(connection, {"done": True})

    def _watch(self, peer: int, connection: socket.socket, words: TextIO) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peers[peer] = connection
        thread = threading.Thread(target=self._listen, args=(peer, words), daemon=True, name=f"lifeline-{peer}")
        thread.start()

    def _listen(self, peer: int, words: TextIO) -> None:
        try:
            for line in words:
                word = json.loads(line)
                if "phase" in word:
                    self._phases[peer] = word["phase"], time.monotonic()
                elif "done" in word:
                    return
                elif "failed" in word:
                    self._end(word["failed"], word["code"])
                elif "stop" in word:
                    self._ended.set()
                    _exit(word["stop"])
        except (OSError, ValueError):  # the connection broke, perhaps in the middle of a message
            pass
        if self._closing:
            return
        self._end(f"stopped: {self._obituary(peer)}; --resume goes on from the last checkpoint", 1)

    def _obituary(self, peer: int) -> str:
        """Say which rank died, where, and perhaps why: NCCL's watchdog aborts a rank whose collective timed out."""
        phase, since = self._phases.get(peer, ("", time.monotonic()))
        died = f"rank {peer} died{f' in phase {phase}' if phase else ''} without a word"
        waited = time.monotonic() - since
        if not self.timeout or waited < 0.95 * self.timeout:  # the announcement of a phase arrives late
            return f"{died} (killed from outside, by its machine for want of memory, or cut off)"
        others = [f"rank {rank} in {name}" for rank, (name, _) in sorted(self._phases.items()) if name != phase]
        elsewhere = f"; {others[0]} was not with it" if others else ""
        return (
            f"{died} after {waited:.0f} seconds there, as it does where a collective lacks a rank for "
            f"engines.timeout = {self.timeout:g} seconds{elsewhere}: raise engines.timeout if a phase may take so long"
        )

    def _terminated(self) -> NoReturn:
        """End all ranks after SIGTERM, which a launcher sends to those that are left when one has died.

        Which one died is then said first, and this rank has nothing to add.
        """
        self._await_end(_NEWS)
        phase, _ = self._phases.get(self._rank, ("", 0.0))
        where = f" in phase {phase}" if phase else ""
        self.fail(
            f"stopped: rank {self._rank} was terminated (SIGTERM){where}; --resume goes on from the last checkpoint",
            128 + signal.SIGTERM,
        )

    def _await_end(self, seconds: float) -> None:
        """Wait for another thread to end the process; return if none has begun to within so many seconds."""
        if self._ended.wait(seconds):
            threading.Event().wait()

    def _end(self, message: str, code: int) -> NoReturn:
        """Print the message and end all ranks. Only the first call does so; later ones wait for the end."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        self._ended.set()
        print(message, file=sys.stderr, flush=True)
        if self._rank == 0:
            for connection in self._peers.values():
                _send(connection, {"stop": code})
        _exit(code)


def _send(connection: socket.socket, word: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the other side has ended
        connection.sendall(json.dumps(word).encode() + b"\n")


def _exit(code: int) -> NoReturn:
    """End the process at once: the main thread may be in a collective that never returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

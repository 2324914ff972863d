"""A connection between the ranks, over which each learns that another has ended.

Collectives report a dead rank late or never: NCCL waits for its time-out, and a launcher only sees the processes of its
own machine. But the kernel closes the connections of a process that dies, however it dies, and keep-alive probes detect
a machine that vanished. So every rank holds a connection to rank 0. When one rank ends, all do, and the reason is
printed once.

A process that is stopped (SIGSTOP), and a machine that hangs, close nothing. So every rank also sends signs of life. A
rank that is silent for as long as a collective may wait is named, and killed if it is on the same machine.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from refinerl.engines import termination
from refinerl.engines.launched import Launched

_KEY = "refinerl/lifeline"
START = 300.0
"""Seconds within which all ranks must have started."""

_NEWS = 3.0
"""Seconds that a terminated rank waits for the news of another rank's end, for which a launcher terminates the others.

The news has arrived by then; on a busy machine it takes a moment until it is read."""

_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that vanished is noticed after 30 seconds."""

_BEATS = 10
"""Signs of life in the time that a collective may wait; at least one in five seconds."""


class Lifeline:
    """One rank's end of the connection. Its threads end the process, by `os._exit`, when another rank has ended.

    Args:
        launched: this process's place among the ranks.
        store: the store in which rank 0 publishes its port.

    Raises:
        OSError: a rank did not start in time.
    """

    def __init__(self, launched: Launched, store: Any) -> None:
        self.timeout = 0.0
        """Seconds after which a collective fails if a rank has not joined it; 0 before there are collectives."""
        self.standing: Callable[[], str] = lambda: "--resume goes on from the last checkpoint"
        """Gives the end of a message: from what the run can go on."""
        self._rank = launched.rank
        self._phases: dict[int, tuple[str, float]] = {}
        self._ending = threading.Lock()
        self._ended = threading.Event()
        self._closing = False
        self._peers: dict[int, socket.socket] = {}
        self._places: dict[int, list[Any]] = {}
        self._heard: dict[int, float] = {}
        self._done: set[int] = set()
        if launched.rank == 0:
            listener = socket.create_server(("", 0), backlog=launched.size)
            listener.settimeout(START)
            store.set(_KEY, json.dumps([listener.getsockname()[1], _place()]))
            for _ in range(launched.size - 1):
                connection, _ = listener.accept()
                connection.settimeout(None)
                words = connection.makefile("r")
                word = json.loads(words.readline())
                self._watch(int(word["rank"]), connection, words, word["place"])
            listener.close()
        else:
            port, place = json.loads(store.get(_KEY))
            connection = socket.create_connection((launched.address, port), timeout=START)
            connection.settimeout(None)
            _send(connection, {"rank": launched.rank, "place": _place()})
            self._watch(0, connection, connection.makefile("r"), place)
        self._restore_sigterm = termination.listen(self._terminated)

    def begin(self, timeout: float) -> None:
        """Start to send signs of life and to expect them: from now on there are collectives, which wait `timeout`."""
        self.timeout = timeout
        threading.Thread(target=self._beat, daemon=True, name="lifeline-beat").start()

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
        print(message, file=sys.stderr)  # rank 0 is silent
        _exit(code)

    def late(self) -> NoReturn:
        """End all ranks because a collective timed out here: rank 0 says for which rank it waited."""
        if self._rank and 0 not in self._silent():
            _send(self._peers[0], {"late": True})
            self._await_end(10)
        self._end(self._blame(self._rank), 1)

    def close(self) -> None:
        """Announce that the run has ended well here, so that the others go on when this process ends."""
        self._closing = True
        self._restore_sigterm()
        for connection in self._peers.values():
            _send(connection, {"done": True})

    def _beat(self) -> None:
        """Send signs of life, and look for the others' and for the launcher."""
        pause = min(5.0, self.timeout / _BEATS)
        launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        last = time.monotonic()
        while not self._ended.wait(pause) and not self._closing:
            for connection in self._peers.values():
                _send(connection, {"alive": True})
            now = time.monotonic()
            if now - last > 2 * pause + 1:  # this rank slept itself, and has yet to read what the others sent
                self._heard |= dict.fromkeys(self._peers, now)
            last = now
            if self._silent_for(self.timeout):
                self._end(self._blame(self._rank), 1)
            if launcher is not None and os.getppid() != launcher:
                self.fail(f"stopped: the launcher of the ranks has ended, and they with it; {self.standing()}", 1)

    def _watch(self, peer: int, connection: socket.socket, words: TextIO, place: list[Any]) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peers[peer] = connection
        self._places[peer] = place
        self._heard[peer] = time.monotonic()
        thread = threading.Thread(target=self._listen, args=(peer, words), daemon=True, name=f"lifeline-{peer}")
        thread.start()

    def _listen(self, peer: int, words: TextIO) -> None:
        try:
            for line in words:
                word = json.loads(line)
                self._heard[peer] = time.monotonic()
                if "phase" in word:
                    self._phases[peer] = word["phase"], time.monotonic()
                elif "done" in word:
                    self._done.add(peer)
                    return
                elif "failed" in word:
                    self._end(word["failed"], word["code"])
                elif "late" in word:
                    self._end(self._blame(peer), 1)
                elif "stop" in word:
                    self._ended.set()
                    _exit(word["stop"])
        except (OSError, ValueError):  # the connection broke, perhaps in the middle of a message
            pass
        if self._closing:
            return
        self._end(f"stopped: {self._obituary(peer)}; {self.standing()}", 1)

    def _silent(self) -> list[int]:
        """Return the ranks of which three signs of life are missing."""
        return self._silent_for(3 * min(5.0, self.timeout / _BEATS) + 1)

    def _silent_for(self, seconds: float) -> list[int]:
        """Return the ranks that have said nothing for so long."""
        now = time.monotonic()
        return sorted(peer for peer in self._peers if peer not in self._done and now - self._heard[peer] > seconds)

    def _blame(self, waiting: int) -> str:
        """Say for which rank another waited: a silent one, else the one that has been in another phase for longest."""
        knob = f"engines.timeout = {self.timeout:g} seconds"
        silent = self._silent()
        if silent:
            peer = silent[0]
            phase, _ = self._phases.get(peer, ("start", 0.0))
            seconds = time.monotonic() - self._heard[peer]
            self._kill(silent)
            return (
                f"stopped: rank {peer} has been silent for {seconds:.0f} seconds in phase {phase} ({knob}): its "
                f"process is stopped, or its machine hangs; {self.standing()}"
            )
        mine, _ = self._phases.get(waiting, ("start", 0.0))
        others = [(since, rank, phase) for rank, (phase, since) in self._phases.items() if phase != mine]
        if others:
            since, rank, phase = min(others)
            return (
                f"stopped: rank {rank} has been in phase {phase} for {time.monotonic() - since:.0f} seconds while rank "
                f"{waiting} waited for it ({knob}): raise engines.timeout if a phase may take so long, else see where "
                f"rank {rank} hangs; {self.standing()}"
            )
        return (
            f"stopped: rank {waiting} waited in phase {mine} for a rank that never came ({knob}): raise "
            f"engines.timeout if a phase may take so long; {self.standing()}"
        )

    def _kill(self, ranks: list[int]) -> None:
        """Kill the ranks on this machine: a stopped process would keep its memory and its device."""
        for rank in ranks:
            pid, machine = self._places[rank]
            if machine == _place()[1]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

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
            f"stopped: rank {self._rank} was terminated (SIGTERM){where}; {self.standing()}",
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


def _place() -> list[Any]:
    """Return this process's id, and a text that no other machine and no other container has."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    return [os.getpid(), machine or socket.gethostname()]


def _send(connection: socket.socket, word: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the other side has ended
        connection.sendall(json.dumps(word).encode() + b"\n")


def _exit(code: int) -> NoReturn:
    """End the process at once: the main thread may be in a collective that never returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

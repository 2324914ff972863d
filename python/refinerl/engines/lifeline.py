"""Connections between the ranks that report the end of a rank to all others.

Collectives report a dead rank late or never: NCCL waits for its timeout, and a launcher sees only the processes of its
own machine. But the kernel closes the connections of a process however it dies, and keep-alive probes detect a lost
machine. Therefore every rank keeps a connection to rank 0. When one rank ends, all ranks end, and the reason is printed
once.

A stopped process (SIGSTOP) or a hanging machine closes no connection. Therefore every rank also sends heartbeats. The
message names a rank that sends none for as long as a collective may wait; it is killed if it is on the same machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

from refinerl.data.terminal import safe
from refinerl.engines import termination
from refinerl.engines.launched import Launched

_KEY = "refinerl/lifeline"
START = 300.0
"""Seconds within which all ranks must have started."""

_NEWS = 3.0
"""Seconds within which a rank reads a report that another rank has ended, also on a busy machine.

A rank waits for them after SIGTERM, as a launcher terminates the remaining ranks when one has died, and rank 0 when it
has told the others to end."""

_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""Keep-alive settings in seconds, probes and milliseconds; a lost machine is detected after 30 seconds.

No probe is sent while a heartbeat is not acknowledged: that is what the last one limits."""

_GLANCE = 0.5
"""Seconds that a rank waits after SIGTERM for such a report before it begins to save; most have arrived by then."""

_BEATS = 10
"""Number of heartbeats in the time that a collective may wait; there is at least one every five seconds."""


class Lifeline:
    """One rank's connections. Its threads end the process with `os._exit` when another rank has ended.

    Args:
        launched: this process's rank and the number of ranks.
        store: the store in which rank 0 publishes its port.

    Raises:
        OSError: a rank did not start in time.
    """

    def __init__(self, launched: Launched, store: Any) -> None:
        self.timeout = 0.0
        """Seconds after which a collective fails if a rank has not joined it; 0 until collectives can be used."""
        self.standing: Callable[[], str] = lambda: "--resume goes on from the last checkpoint"
        """Returns the last clause of each message, which says where `--resume` continues."""
        self.ask: Callable[[int], bool] = lambda number: False
        """Called with the number of SIGTERM; returns True if the ranks will end by themselves."""
        self._rank = launched.rank
        self._phases: dict[int, tuple[str, float]] = {}
        self._ending = threading.Lock()
        self._ended = threading.Event()
        self._closing = False
        self._peers: dict[int, socket.socket] = {}
        self._places: dict[int, list[Any]] = {}
        self._heard: dict[int, float] = {}
        self._beaten = 0.0
        """Time of this rank's last heartbeat; 0 before the first."""
        self._back = 0.0
        """Time at which this rank continued after a pause of its own; it has not read yet what others sent in it."""
        self._done: set[int] = set()
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        if launched.rank == 0:
            listener = socket.create_server(("", 0), backlog=launched.size)
            listener.settimeout(START)
            store.set(_KEY, json.dumps([listener.getsockname()[1], _place()]))
            joined = []
            for _ in range(launched.size - 1):
                connection, _ = listener.accept()
                connection.settimeout(None)
                words = connection.makefile("r")
                word = json.loads(words.readline())
                joined.append((int(word["rank"]), words))
                self._connect(int(word["rank"]), connection, word["place"])
            listener.close()
            for peer, words in joined:  # only now: what one of them reports has to reach them all
                self._watch(peer, words)
        else:
            port, place = json.loads(store.get(_KEY))
            connection = socket.create_connection((launched.address, port), timeout=START)
            connection.settimeout(None)
            _send(connection, {"rank": launched.rank, "place": _place()})
            self._connect(0, connection, place)
            self._watch(0, connection.makefile("r"))
        self._restore_sigterm = termination.listen(self._terminated)

    def begin(self, timeout: float) -> None:
        """Start sending heartbeats and expecting them, now that collectives are used; each waits at most `timeout`."""
        self.timeout = timeout
        threading.Thread(target=self._beat, daemon=True, name="lifeline-beat").start()

    def phase(self, name: str) -> None:
        """Announce the phase that this rank is in, so that a message about its end can name it."""
        self._phases[self._rank] = name, time.monotonic()
        for connection in self._peers.values():
            _send(connection, {"phase": name})

    def wait(self) -> None:
        """Wait a few seconds for a report that another rank has ended, which may be the cause of this rank's failure.

        Return only if there is no such report: a report ends the process.
        """
        self._await_end(5)

    def fail(self, message: str, code: int) -> NoReturn:
        """End all ranks with this exit code; rank 0 prints the message once."""
        if self._rank == 0:
            self._end(message, code)
        _send(self._peers[0], {"failed": message, "code": code})
        self._await_end(10)  # rank 0's answer ends this process
        say(message)  # rank 0 has not answered
        _exit(code)

    def late(self) -> NoReturn:
        """End all ranks because a collective timed out on this one; rank 0 prints which rank it waited for."""
        if self._rank and 0 not in self._silent():
            _send(self._peers[0], {"late": True})
            self._await_end(10 + 3 * self._interval)  # rank 0 waits itself if it was paused
        self._end(partial(self._blame, self._rank), 1)

    def close(self) -> None:
        """Announce that this rank has finished, so that the others continue when its process ends.

        Return only if no thread of this rank ends the process because of another one.
        """
        self._await_end(0)
        self._closing = True
        self._restore_sigterm()
        for connection in self._peers.values():
            _send(connection, {"done": True})

    def _beat(self) -> None:
        """Send heartbeats; check that the other ranks send theirs and that the launcher is alive."""
        self._beaten = time.monotonic()
        while not self._ended.wait(self._interval) and not self._closing:
            for connection in self._peers.values():
                _send(connection, {"alive": True})
            self._notice_pause()
            self._beaten = time.monotonic()
            if self._silent_for(self.timeout):
                self._end(partial(self._blame, self._rank), 1)
            if self._launcher is not None and os.getppid() != self._launcher:
                self.fail(f"stopped: the launcher of the ranks has ended, and they with it; {self._stand()}", 1)

    def _stand(self) -> str:
        """Return the last clause of a message; an error in composing it must not keep a rank alive."""
        try:
            return self.standing()
        except Exception as error:
            return f"where --resume goes on could not be found out ({type(error).__name__}: {error})"

    def _connect(self, peer: int, connection: socket.socket, place: list[Any]) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a last word leaves before the process ends
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peers[peer] = connection
        self._places[peer] = place
        self._heard[peer] = time.monotonic()

    def _watch(self, peer: int, words: TextIO) -> None:
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
                elif "failed" in word:
                    self._end(word["failed"], word["code"])
                elif "late" in word:
                    self._end(partial(self._blame, peer), 1)
                elif "stop" in word:
                    self._ended.set()
                    _exit(word["stop"])
        except (OSError, ValueError):  # the connection broke, perhaps in the middle of a message
            pass
        if self._closing or peer in self._done:
            return
        self._end(f"stopped: {self._obituary(peer)}; {self._stand()}", 1)

    @property
    def _interval(self) -> float:
        """Seconds between two heartbeats."""
        return min(5.0, self.timeout / _BEATS)

    def _notice_pause(self) -> None:
        """Remember that this rank itself was paused: stopped, or without a processor on a busy machine."""
        now = time.monotonic()
        if self._beaten and now - self._beaten > 2 * self._interval + 1:
            self._back = now

    def _silent(self) -> list[int]:
        """Return the ranks that have missed three heartbeats.

        If this rank was just paused, wait until it could have read three: without them it can neither call a rank
        silent that was not, nor leave a stopped one unnamed, which then nobody kills.
        """
        limit = 3 * self._interval + 1
        self._notice_pause()
        time.sleep(max(0.0, self._back + limit - time.monotonic()))
        return self._silent_for(limit)

    def _silent_for(self, seconds: float) -> list[int]:
        """Return the unfinished ranks that have sent nothing for `seconds`, during which this rank was not paused."""
        now = time.monotonic()
        return sorted(
            peer
            for peer in self._peers
            if peer not in self._done and now - max(self._heard[peer], self._back) > seconds
        )

    def _blame(self, waiting: int) -> str:
        """Compose the message about a timeout, and kill silent ranks.

        It names a silent rank, or else the rank that has been in a phase other than the waiting rank's for longest.
        """
        knob = f"engines.timeout = {self.timeout:g} seconds"
        silent = [rank for rank in self._silent() if rank != waiting]  # this one said just now that it waits
        if silent:
            peer = silent[0]
            phase, _ = self._phases.get(peer, ("start", 0.0))
            seconds = time.monotonic() - self._heard[peer]
            self._kill(silent)
            return (
                f"stopped: rank {peer} has been silent for {seconds:.0f} seconds in phase {phase} ({knob}): its "
                f"process is stopped, or its machine hangs; {self._stand()}"
            )
        mine, _ = self._phases.get(waiting, ("start", 0.0))
        phases = dict(self._phases)  # the others' may still be added
        others = [(since, rank, phase) for rank, (phase, since) in phases.items() if phase != mine]
        if others:
            since, rank, phase = min(others)
            return (
                f"stopped: rank {rank} has been in phase {phase} for {time.monotonic() - since:.0f} seconds while rank "
                f"{waiting} waited for it ({knob}): raise engines.timeout if a phase may take so long, else see where "
                f"rank {rank} hangs; {self._stand()}"
            )
        return (
            f"stopped: rank {waiting} waited in phase {mine} for a rank that never came ({knob}): raise "
            f"engines.timeout if a phase may take so long; {self._stand()}"
        )

    def _kill(self, ranks: list[int]) -> None:
        """Kill those of the ranks that are on this machine, as a stopped process keeps its memory and its device."""
        for rank in ranks:
            pid, machine = self._places[rank]
            if machine == _place()[1]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _obituary(self, peer: int) -> str:
        """Describe a rank's death: its phase, and perhaps its cause (NCCL's watchdog aborts a rank after a timeout)."""
        phase, since = self._phases.get(peer, ("", time.monotonic()))
        died = f"rank {peer} died{f' in phase {phase}' if phase else ''} without a word"
        waited = time.monotonic() - since
        if not self.timeout or waited < 0.95 * self.timeout:  # the announcement of a phase arrives late
            return f"{died} (killed from outside, by its machine for want of memory, or cut off)"
        others = [f"rank {rank} in {name}" for rank, (name, _) in sorted(dict(self._phases).items()) if name != phase]
        elsewhere = f"; {others[0]} was not with it" if others else ""
        return (
            f"{died} after {waited:.0f} seconds there, as it does where a collective lacks a rank for "
            f"engines.timeout = {self.timeout:g} seconds{elsewhere}: raise engines.timeout if a phase may take so long"
        )

    def _terminated(self) -> None:
        """End all ranks after SIGTERM, unless `ask` says that they end by themselves.

        A launcher also sends SIGTERM to the remaining ranks when one has died. In that case the report of the dead rank
        arrives first and ends the process, so this rank prints nothing.
        """
        self._await_end(_GLANCE)
        if self.ask(signal.SIGTERM):
            return
        self._await_end(_NEWS)
        phase, _ = self._phases.get(self._rank, ("", 0.0))
        where = f" in phase {phase}" if phase else ""
        self.fail(
            f"stopped: rank {self._rank} was terminated (SIGTERM){where}; {self._stand()}",
            128 + signal.SIGTERM,
        )

    def _await_end(self, seconds: float) -> None:
        """Wait for another thread to end the process; return if none has started to within `seconds`."""
        if self._ended.wait(seconds):
            threading.Event().wait()

    def _end(self, message: str | Callable[[], str], code: int) -> NoReturn:
        """Print the message and end all ranks. Only the first call does so; later ones wait for the end.

        A message that is composed only then may kill ranks: their connections end, and another thread would report it.
        The process ends whatever happens meanwhile: other threads wait for it.
        """
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()
        self._ended.set()
        try:
            say(message if isinstance(message, str) else message())
            if self._rank == 0:
                self._dismiss(code)
        except Exception:
            say(traceback.format_exc())
        finally:
            _exit(code)

    def _dismiss(self, code: int) -> None:
        """Tell the other ranks to end, and read what they send until they have, at most for a few seconds.

        A process that ends with unread messages resets its connections, and with them discards what it sent last.
        """
        with selectors.PollSelector() as left:  # takes no file descriptor: to have none left may be why all end
            for connection in self._peers.values():
                _send(connection, {"stop": code})
                left.register(connection, selectors.EVENT_READ, connection)
            deadline = time.monotonic() + _NEWS
            while left.get_map() and time.monotonic() < deadline:
                for key, _ in left.select(max(0.0, deadline - time.monotonic())):
                    if _has_ended(key.data):
                        left.unregister(key.fileobj)


def say(message: str) -> None:
    """Print to standard error. If nobody reads it any more, or its disk is full, the ranks have to end all the same."""
    with contextlib.suppress(OSError, ValueError):
        print(safe(message), file=sys.stderr, flush=True)


def _place() -> list[Any]:
    """Return this process's id, and a text that is unique to this machine and container."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    return [os.getpid(), machine or socket.gethostname()]


def _send(connection: socket.socket, word: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the peer has ended
        connection.sendall(json.dumps(word).encode() + b"\n")


def _has_ended(connection: socket.socket) -> bool:
    """Read what has arrived, also where another thread reads, and return True if the peer has closed."""
    try:
        return not connection.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:  # the other thread was faster
        return False
    except OSError:
        return True


def _exit(code: int) -> NoReturn:
    """End the process at once: the main thread may be in a collective that never returns."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
    finally:
        os._exit(code)

"""Start and end of the processes of a run. Used by the commands."""

from __future__ import annotations

import atexit
import ctypes
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from refinerl.contracts import ALONE, World
from refinerl.engines import devices
from refinerl.engines.lifeline import Lifeline
from refinerl.engines.world import Launched, Ranks, dist, has_joined, leave
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.sandbox import SandboxError

_ECHOES = ("closed by peer", "connection reset", "broken pipe", "connection was closed", "heartbeat")
"""Parts of the messages of a collective operation after another rank has died."""


EXPECTED = (UserError, TrainingStoppedError, SandboxError, FloatingPointError)
"""Exceptions that are reported by their message alone, without a traceback."""


def last_words(error: BaseException) -> tuple[str, int]:
    """Return the message that a command prints for an expected exception, and the exit code.

    >>> last_words(UserError("trainer.steps must be at least 1"))
    ('error: trainer.steps must be at least 1', 2)
    """
    return (f"error: {error}", 2) if isinstance(error, UserError) else (f"stopped: {error}", 1)


class Link:
    """A single process."""

    def __init__(self) -> None:
        self.rank = 0
        self._launched: Launched | None = None

    def claim(self, device: str) -> torch.device:
        """Choose this process's device according to the knob `device`. Each rank of a machine gets its own.

        Raises:
            UserError: it does not exist or cannot be used.
        """
        return devices.claim(device, self._launched)

    def join(self, timeout: float, device: torch.device) -> World:
        """Join the ranks of the run, each with its device. They wait `timeout` seconds for each other."""
        return ALONE

    def notice(self, phase: str) -> None:
        """Note what this process does next."""

    def end(self, message: str, code: int) -> int:
        """Print why the run ends; return the exit code."""
        print(message, file=sys.stderr)
        return code


class RankLink(Link):
    """A rank among several: an error in one ends all, and is printed once."""

    def __init__(self, launched: Launched) -> None:
        self.rank = launched.rank
        self._launched = self._ranked = launched
        self._store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
        self._lifeline = Lifeline(launched, dist.PrefixStore("lifeline", self._store))
        self._timeout = 0.0
        self._phase = "start"

    def join(self, timeout: float, device: torch.device) -> World:
        """Join the ranks of the run, each with its device. They wait `timeout` seconds for each other."""
        self._timeout = timeout
        self._lifeline.timeout = timeout
        return Ranks(self._ranked, dist.PrefixStore("ranks", self._store), timeout, device)

    def notice(self, phase: str) -> None:
        """Note what this process does next; it is reported if the process dies."""
        self._phase = phase
        self._lifeline.phase(phase)

    def end(self, message: str, code: int) -> int:
        """Print why the run ends, once for all ranks, and end all of them."""
        self._lifeline.fail(message, code)

    def fail(self, error: BaseException) -> None:
        """End all ranks because of an exception; print its traceback unless it is an expected one."""
        if isinstance(error, EXPECTED):
            self.end(*last_words(error))
        text = str(error).lower()
        echo = any(said in text for said in _ECHOES)
        hint = f" (engines.timeout = {self._timeout:g} seconds)" if "timed out" in text or "timeout" in text else ""
        if echo:
            self._lifeline.wait()
        traceback.print_exception(error)
        self._lifeline.fail(
            f"stopped: rank {self.rank} failed in {self._phase}: {type(error).__name__}{hint}; see the traceback "
            "above; --resume goes on from the last checkpoint",
            1,
        )

    def close(self) -> None:
        """Close the connections to the other ranks."""
        self._lifeline.close()
        leave()


@contextmanager
def linked() -> Iterator[Link]:
    """Yield this process's link and close it at the end. An exception that is not caught ends all ranks.

    Raises:
        UserError: the launcher's environment is incomplete.
    """
    launched = Launched.read()
    if launched is not None:
        launched.tell()
    if launched is None or launched.size == 1:
        try:
            yield Link()
        finally:
            leave()
        return
    link = RankLink(launched)
    try:
        yield link
    except Exception as error:
        link.fail(error)
    finally:
        link.close()


def end_process(code: int) -> NoReturn:
    """Exit as `sys.exit` does, but without finalizing the interpreter if the process was in a process group.

    A thread of gloo may still hold the tensors of the last collective operation. To release them it takes the
    interpreter's lock, which aborts the process while the interpreter is being finalized ("terminate called without an
    active exception"). Destroying the group would wait for its threads, but DeepSpeed keeps its groups to the end.
    """
    if not has_joined():
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).exit(code)  # C exit handlers still run: vLLM removes its shared memory
    raise AssertionError("exit returned")

"""How the processes of a run begin and end together. A part of the commands."""

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
"""What a collective says when another rank has died."""


EXPECTED = (UserError, TrainingStoppedError, SandboxError, FloatingPointError)
"""Exceptions whose message says all that there is to say."""


def last_words(error: BaseException) -> tuple[str, int]:
    """Return what a command prints of an expected exception, and its exit code.

    >>> last_words(UserError("trainer.steps must be at least 1"))
    ('error: trainer.steps must be at least 1', 2)
    """
    return (f"error: {error}", 2) if isinstance(error, UserError) else (f"stopped: {error}", 1)


class Link:
    """This process among those of its run, or alone."""

    def __init__(self) -> None:
        self.rank = 0
        self._launched: Launched | None = None

    def claim(self, device: str) -> torch.device:
        """This process's device, as the knob `device` asks for it; each rank of a machine gets its own.

        Raises:
            UserError: there is none such, or it cannot be used.
        """
        return devices.claim(device, self._launched)

    def join(self, timeout: float, device: torch.device) -> World:
        """The ranks of the run, each with its device, which wait `timeout` seconds for each other."""
        return ALONE

    def notice(self, phase: str) -> None:
        """What this process is about to do."""

    def end(self, message: str, code: int) -> int:
        """Says why the run ends; returns the exit code."""
        print(message, file=sys.stderr)
        return code


class RankLink(Link):
    """One of many: whatever ends one ends all, and is said once."""

    def __init__(self, launched: Launched) -> None:
        self.rank = launched.rank
        self._launched = self._ranked = launched
        self._store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
        self._lifeline = Lifeline(launched, dist.PrefixStore("lifeline", self._store))
        self._timeout = 0.0
        self._phase = "start"

    def join(self, timeout: float, device: torch.device) -> World:
        """The ranks of the run, each with its device, which wait `timeout` seconds for each other."""
        self._timeout = timeout
        self._lifeline.timeout = timeout
        return Ranks(self._ranked, dist.PrefixStore("ranks", self._store), timeout, device)

    def notice(self, phase: str) -> None:
        """What this process is about to do: said should it die."""
        self._phase = phase
        self._lifeline.phase(phase)

    def end(self, message: str, code: int) -> int:
        """Says why the run ends, once for all ranks, and ends all."""
        self._lifeline.fail(message, code)

    def fail(self, error: BaseException) -> None:
        """End all ranks because of an exception, with its traceback unless it was expected."""
        if isinstance(error, EXPECTED):
            self.end(*last_words(error))
        text = str(error).lower()
        echo = any(said in text for said in _ECHOES)
        hint = f" (engines.timeout = {self._timeout:g} seconds)" if "timed out" in text or "timeout" in text else ""
        if echo:
            self._lifeline.wait()
        traceback.print_exception(error)
        self._lifeline.fail(
            f"stopped: rank {self.rank} failed in {self._phase}: {type(error).__name__}{hint}; its traceback stands "
            "above; --resume goes on from the last checkpoint",
            1,
        )

    def close(self) -> None:
        """Leaves in peace."""
        self._lifeline.close()
        leave()


@contextmanager
def linked() -> Iterator[Link]:
    """This process's link, closed at the end; an exception that nobody caught ends all ranks.

    Raises:
        UserError: the launcher does not say enough.
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
    """What `sys.exit` does, except that a process which was in a process group does not take its interpreter down.

    A thread of gloo may still hold the tensors of the last collective. To let go of them it takes the interpreter's
    lock, and in an interpreter that is going down that aborts the process: "terminate called without an active
    exception". The end of a process group would wait for its threads, but DeepSpeed keeps its groups to the last.
    """
    if not has_joined():
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).exit(code)  # libraries still clean up behind them: vLLM removes its shared memory
    raise AssertionError("exit returned")

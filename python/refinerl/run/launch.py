"""Start and end of the processes of a run. Used by the commands."""

from __future__ import annotations

import atexit
import ctypes
import datetime
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from refinerl.contracts import ALONE, World
from refinerl.data.terminal import safe
from refinerl.engines import devices, lifeline
from refinerl.engines.lifeline import Lifeline
from refinerl.engines.world import Launched, Ranks, dist, has_joined, leave
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.run.interruption import Interrupted, Interruption
from refinerl.sandbox import SandboxError

_ECHOES = ("closed by peer", "connection reset", "broken pipe", "connection was closed", "heartbeat", "ncclremoteerror")
"""Parts of the messages of a collective operation after another rank has died."""

_LATE = re.compile(r"timed out waiting \d|wait timeout|timeout after \d+ ?ms|connectfullmesh failed.*time", re.DOTALL)
"""Messages of a collective's errors if another rank did not join it in time."""


EXPECTED = (UserError, TrainingStoppedError, SandboxError, FloatingPointError)
"""Exceptions that are reported by their message alone, without a traceback."""


def last_words(error: BaseException) -> tuple[str, int]:
    """Return the message that a command prints for an expected exception, and the exit code.

    >>> last_words(UserError("trainer.steps must be at least 1"))
    ('error: trainer.steps must be at least 1', 2)
    """
    return (f"error: {error}", 2) if isinstance(error, UserError) else (f"stopped: {error}", 1)


class Link:
    """A run in a single process."""

    def __init__(self) -> None:
        self.rank = 0
        self._launched: Launched | None = None
        self._phase = "start"
        self._standing: Callable[[], str] = lambda: "no step was begun"
        self.interruption = Interruption()
        """The requests to end the run."""

    def claim(self, device: str, knob: str = "device") -> torch.device:
        """Choose this process's device by the value of a knob. Each rank of a machine gets its own.

        Raises:
            UserError: it does not exist or cannot be used.
        """
        return devices.claim(device, self._launched, knob)

    def join(self, timeout: float, device: torch.device) -> World:
        """Join the ranks of the run, each with its device. They wait `timeout` seconds for each other."""
        return ALONE

    def notice(self, phase: str) -> None:
        """Record the phase that this process starts or has finished."""
        self._phase = phase

    def stand(self, standing: Callable[[], str]) -> None:
        """Set the function that describes in messages where `--resume` continues."""
        self._standing = standing

    def train_together(self) -> None:
        """From now on end the run by agreement of its ranks if SIGINT or SIGTERM arrives."""

    def end(self, message: str, code: int) -> int:
        """Print the reason for the end of the run; return the exit code."""
        print(safe(message), file=sys.stderr)
        return code

    def fail(self, error: BaseException) -> int:
        """Print the traceback of an unexpected exception and the end of the run; return the exit code."""
        print(safe("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        return self.end(
            f"stopped: {type(error).__name__} in {self._phase}; see the traceback above; {self._standing()}", 1
        )


class RankLink(Link):
    """One of several ranks. An error in one rank ends all ranks and is printed once."""

    def __init__(self, launched: Launched) -> None:
        super().__init__()
        self.rank = launched.rank
        self._launched = self._ranked = launched
        limit = datetime.timedelta(seconds=lifeline.START)
        try:
            self._store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size, timeout=limit))
            self._lifeline = Lifeline(launched, dist.PrefixStore("lifeline", self._store))
        except (OSError, dist.DistError) as error:
            raise UserError(
                f"rank {launched.rank} of {launched.size} did not find the others within {lifeline.START:g} seconds "
                f"({type(error).__name__}): see that all of them begin, and that MASTER_ADDR and MASTER_PORT "
                "name a place which they reach"
            ) from error

    def join(self, timeout: float, device: torch.device) -> World:
        """Join the ranks of the run, each with its device. They wait `timeout` seconds for each other."""
        self._lifeline.begin(timeout)
        return Ranks(self._ranked, dist.PrefixStore("ranks", self._store), timeout, device)

    def notice(self, phase: str) -> None:
        """Record and announce the phase that this process starts or has finished, for the message if it dies."""
        super().notice(phase)
        self._lifeline.phase(phase)

    @property
    def begun(self) -> bool:
        """True once the ranks have joined; from then on, collectives wait for all of them."""
        return self._lifeline.timeout > 0

    def stand(self, standing: Callable[[], str]) -> None:
        """Set the function that describes in messages where `--resume` continues."""
        super().stand(standing)
        self._lifeline.standing = standing

    def train_together(self) -> None:
        """From now on end the run by agreement of its ranks if SIGINT or SIGTERM arrives."""
        self.interruption.join(tells=self.rank == 0)
        self._lifeline.ask = self.interruption.ask

    def end(self, message: str, code: int) -> int:
        """Print the reason for the end of the run once, and end all ranks."""
        self._lifeline.fail(message, code)

    def fail(self, error: BaseException) -> int:
        """End all ranks because of an exception; print its traceback unless the exception is an expected one.

        If a collective timed out, the cause is another rank, and the message names that rank.
        """
        if isinstance(error, EXPECTED):
            self.end(*last_words(error))
        text = str(error).lower()
        if any(said in text for said in _ECHOES):
            self._lifeline.wait()
        if isinstance(error, RuntimeError) and _LATE.search(text):
            self._lifeline.late()
        lifeline.say("".join(traceback.format_exception(error)).rstrip("\n"))
        self._lifeline.fail(
            f"stopped: rank {self.rank} failed in {self._phase}: {type(error).__name__}; see the traceback above; "
            f"{self._standing()}",
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
    except KeyboardInterrupt as interrupt:
        link.end(str(interrupt) or "interrupted", interrupt.code if isinstance(interrupt, Interrupted) else 130)
    except SystemExit as error:  # of the command line, or in the middle of a run
        if link.begun:
            link.fail(error)
        raise
    except BaseException as error:
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

"""Runs that wait at a moment to be stopped, each forked from a process that has imported everything.

python stopping.py reads orders as JSON lines: the arguments of the training command, a folder for output, a moment.
For each it prints the run's process id, and its exit code (negative for a signal) at its end. At its moment the run
writes the file `reached` into that folder, and waits for the file `go`.

A moment is the start of a phase, as messages name it (`score of step 2`), or `optimizer step of step 2`, when the
weights have moved and the update goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launching import environment


@dataclass
class Stopped:
    """A run that waits at its moment."""

    pid: int
    folder: Path
    server: Server

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def told(self) -> str:
        """Return what the run has written to standard error so far."""
        return (self.folder / "err").read_text()

    def tells(self, text: str) -> None:
        """Wait until the run has said this."""
        until(lambda: text in self.told())

    def go_on(self) -> None:
        """End the wait."""
        (self.folder / "go").touch()

    def end(self) -> int:
        """Return the exit code at the end."""
        return int(self.server.line())


class Server:
    """The process that forks the runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has ended"
        return line

    def start(self, arguments: list[str], folder: Path, moment: str) -> Stopped:
        """Start a run and wait until it has reached the moment."""
        folder.mkdir()
        assert self._process.stdin is not None
        print(json.dumps([arguments, str(folder), moment]), file=self._process.stdin, flush=True)
        run = Stopped(int(self.line()), folder, self)
        until((folder / "reached").exists)
        return run

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most five minutes."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


def wait_at(moment: str, folder: Path) -> None:
    """Let this process wait at a moment, once. There, signals in quick succession are several requests."""
    from refinerl.engines.torch import TorchTrainer
    from refinerl.run import interruption
    from refinerl.run.launch import Link

    interruption._DOUBLE = 0.0

    notice, step = Link.notice, TorchTrainer.step
    now = ""

    def wait(here: str) -> None:
        if here == moment and not (folder / "reached").exists():
            (folder / "reached").touch()
            until((folder / "go").exists)

    def noticing(self: Link, phase: str) -> None:
        nonlocal now
        notice(self, phase)
        now = phase
        wait(phase)

    def stepping(self: TorchTrainer) -> Any:
        norm = step(self)
        wait(f"optimizer step of {now.removeprefix('update of ')}")
        return norm

    Link.notice, TorchTrainer.step = noticing, stepping  # type: ignore[method-assign]


def serve() -> None:
    import signal

    import transformers.models.llama.modeling_llama  # noqa: F401

    from refinerl import train

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    for line in sys.stdin:
        arguments, folder, moment = json.loads(line)
        pid = os.fork()
        if not pid:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            wait_at(moment, Path(folder))
            code = train.main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()

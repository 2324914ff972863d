"""Processes in which math-verify compares mathematical answers, each with a time limit that always holds.

math-verify may compute for hours, or fill the memory, on an answer such as 5^(5^(5^5)), and its own time limit does not
interrupt code that is not Python's. Here such an answer costs its process, which is replaced.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["equal", "different", "unreadable", "timeout", "crash"]
"""unreadable: the right answer is no mathematics. timeout, crash: the response ended the process."""

START = 300.0
"""Seconds in which a process has to be ready; it imports SymPy, perhaps from a slow disk."""
PATIENCE = 4
"""A process that waits for the processor has this many times the limit of processor time."""


class MathJudges:
    """Processes that compare answers; they are started when they are needed.

    Args:
        seconds: processor time for each answer.
        workers: number of processes.
    """

    def __init__(self, seconds: float = 5.0, workers: int = 1) -> None:
        self.seconds = seconds
        self._idle = [_Judge() for _ in range(workers)]

    def compare(self, pairs: Sequence[tuple[str, str | None]]) -> list[Verdict]:
        """Compare each response with the right answer: pairs (right answer, response); of None only read the former.

        Raises:
            RuntimeError: a process does not start.
        """
        verdicts: list[Verdict] = ["crash"] * len(pairs)
        waiting = deque(enumerate(pairs))
        busy: dict[_Judge, int] = {}
        starting = self._idle[: len(pairs)]
        for judge in starting:
            judge.start()
        for judge in starting:
            judge.wait()
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or busy:
                    while waiting and self._idle:
                        number, (gold, answer) = waiting.popleft()
                        judge = self._idle.pop(0)
                        busy[judge] = number
                        judge.ask(gold, answer, self.seconds)
                        selector.register(judge.output, selectors.EVENT_READ, judge)
                    ready = {key.data for key, _ in selector.select(min(judge.left() for judge in busy))}
                    for judge in [judge for judge in busy if judge in ready or judge.left() <= 0]:
                        output = judge.output
                        if (verdict := judge.verdict(ready=judge in ready)) is not None:
                            selector.unregister(output)
                            verdicts[busy.pop(judge)] = verdict
                            self._idle.append(judge)
            finally:  # an interruption leaves answers under way
                for judge in busy:
                    judge.end()
                    self._idle.append(judge)
        return verdicts

    def close(self) -> None:
        """End the processes."""
        for judge in self._idle:
            judge.end()


class _Judge:
    """One process and the answer that it compares."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: Any = None
        self._ready = False
        self._said = b""
        self._deadline = 0.0

    @property
    def output(self) -> Any:
        """The file that replies are read from."""
        assert self._process is not None
        return self._process.stdout

    def start(self) -> None:
        """Start the process if it does not run."""
        if self._process is not None:
            return
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115, closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
        )
        self._ready = False

    def wait(self) -> None:
        """Wait until the process is ready.

        Raises:
            RuntimeError: it ends, or takes longer than `START`.
        """
        if self._ready:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            self._ready = bool(selector.select(START) and os.read(self.output.fileno(), 1 << 16))
        if not self._ready:
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "it said nothing"
            raise RuntimeError(f"a process of math-verify did not start (exit code {self.end()}): {said}")

    def ask(self, gold: str, answer: str | None, seconds: float) -> None:
        """Send a comparison. Raises as `wait`, if the process has to be replaced."""
        request = json.dumps({"gold": gold, "answer": answer, "seconds": seconds}).encode() + b"\n"
        while not self._sent(request):  # it was killed while it was idle, or by the last answer
            self.end()
            self.start()
            self.wait()
        self._said, self._deadline = b"", time.monotonic() + PATIENCE * seconds

    def _sent(self, request: bytes) -> bool:
        if self._process is None:
            return False
        assert self._process.stdin is not None
        rest = memoryview(request)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except BrokenPipeError:
            return False
        return True

    def left(self) -> float:
        """Return the seconds until the process is killed."""
        return max(0.0, self._deadline - time.monotonic())

    def verdict(self, *, ready: bool) -> Verdict | None:
        """Read the reply, if there is something to read; None if it is not complete yet and there is time left."""
        if ready:
            part = os.read(self.output.fileno(), 1 << 16)
            self._said += part
            if self._said.endswith(b"\n"):
                reply = json.loads(self._said)
                return "unreadable" if not reply["readable"] else "equal" if reply["equal"] else "different"
            if not part:
                return "timeout" if self.end() == -signal.SIGPROF else "crash"
        if self.left() > 0:
            return None
        self.end()
        return "timeout"

    def end(self) -> int:
        """Kill the process, unless it has ended; return its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.kill()
        for file in (process.stdin, process.stdout, self._complaints):
            assert file is not None
            file.close()
        return process.wait()

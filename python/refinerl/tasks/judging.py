"""Verdicts on programs: each program is judged once, and in the background while others are still being written."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from refinerl.sandbox import Outcome, Program, Sandbox, Verdict

KEPT = 2**15
"""Most tests whose verdicts are remembered, beside those that are expected; each has up to 4 KiB of error output."""
BATCH = 16
"""Most programs of a batch in the background, which an interruption has to wait for."""
UNSTABLE = frozenset({Outcome.timeout, Outcome.memory_limit, Outcome.sandbox_error, Outcome.not_run})
"""Outcomes that depend on what else the machine does: such a program is judged again."""


class Key(NamedTuple):
    """Everything that tells two programs of a task apart."""

    problem: str
    isolate: str
    source: str


class Counts(NamedTuple):
    """The work of a sandbox."""

    tests: int = 0
    seconds: float = 0.0


class Judging:
    """A sandbox that remembers its verdicts on a task's programs.

    Args:
        box: judges the programs.
    """

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._known: OrderedDict[Key, Verdict] = OrderedDict()
        """By the time at which they were last asked for or expected."""
        self._expected: set[Key] = set()
        """Programs whose verdicts are to be asked for: those verdicts are not forgotten."""
        self._tests = 0
        self._waiting: dict[Key, Program] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._counts = Counts()

    def expect(self, key: Key, program: Program) -> None:
        """Begin to judge a program in the background, unless its verdict is known."""
        with self._lock:
            self._expected.add(key)
            if key in self._known:
                self._known.move_to_end(key)
                return
            if self._error is not None:
                return
            self._waiting[key] = program
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="judging", daemon=True)
                self._thread.start()

    def judge(self, keys: Sequence[Key], programs: Sequence[Program]) -> list[Verdict]:
        """Return the verdict on each program; those that are known, and those begun before, are not judged again.

        Raises:
            SandboxError: the sandbox itself failed.
        """
        self._wait()
        error, self._error = self._error, None
        if error is not None:
            raise error
        found = {key: self._known[key] for key in keys if key in self._known}
        for key in found:
            self._known.move_to_end(key)
        self._expected.clear()
        new = {key: program for key, program in zip(keys, programs, strict=True) if key not in found}
        found |= self._judged(new)
        return [found[key] for key in keys]

    def take_counts(self) -> Counts:
        """Return the counts since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def close(self) -> None:
        """Drop what waits, and wait for the programs that run, which closing the sandbox before this call cancels."""
        with self._lock:
            self._waiting.clear()
        self._wait()

    def _judged(self, programs: dict[Key, Program]) -> dict[Key, Verdict]:
        if not programs:
            return {}
        started = time.perf_counter()
        verdicts = dict(zip(programs, self._box.judge(list(programs.values())), strict=True))
        tests = [test.outcome for verdict in verdicts.values() for test in verdict.tests]
        self._counts = Counts(
            self._counts.tests + sum(outcome is not Outcome.not_run for outcome in tests),
            self._counts.seconds + time.perf_counter() - started,
        )
        with self._lock:
            for key, verdict in verdicts.items():
                if UNSTABLE.isdisjoint(test.outcome for test in verdict.tests):
                    self._known[key] = verdict
                    self._tests += len(verdict.tests)
            while self._tests > KEPT and next(iter(self._known)) not in self._expected:
                _, oldest = self._known.popitem(last=False)
                self._tests -= len(oldest.tests)
        return verdicts

    def _work(self) -> None:
        """Judge what waits, until nothing does. An error is raised by the next call of `judge`."""
        while True:
            with self._lock:
                batch = {key: self._waiting[key] for key in list(self._waiting)[:BATCH]}
                if not batch or self._error is not None:
                    self._waiting.clear()
                    self._thread = None
                    return
            try:
                self._judged(batch)
            except BaseException as error:
                self._error = error
            with self._lock:
                for key in batch:
                    self._waiting.pop(key, None)

    def _wait(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()

"""Several trackers at once: one that fails or hangs neither stops the run nor harms the others.

Each has a thread of its own, so that the run never waits for one, and gets later what it missed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from refinerl.run.trackers.base import Tracker
from refinerl.run.trackers.examples import Example

PAUSE = 30.0
"""Seconds after a failure before a tracker is tried again."""
WAITING = 2000
"""Messages that wait for a tracker at most, which are a thousand steps; more are given up until the run is resumed."""
TRIES = 3
"""Failures of a message after which it is given up, if the tracker takes others."""
FAULTS = (Exception, SystemExit)
"""Exceptions of a tracker that do not end its thread."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for its trackers."""


class Delivery:
    """Sends the metrics and responses of a run to its trackers.

    Args:
        trackers: where to; there may be none.
        say: prints a line; called once for each tracker that fails, and at the end for each that lacks something.
        now: the time in seconds.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._threads = [_Thread(Outlet(tracker, say, now)) for tracker in trackers]

    def __bool__(self) -> bool:
        return bool(self._threads)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, without those that have no value."""
        for thread in self._threads:
            thread.put(partial(thread.tracker.log, metrics, step), step)

    def catch_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the metrics of a resumed run's earlier steps that a tracker lacks: it failed then, or is new.

        Args:
            rows: of metrics.jsonl, before the first step of this start.
        """
        for thread in self._threads:
            thread.catch_up(rows)

    def tell(self, examples: Sequence[Example], step: int) -> None:
        """Send responses of a step."""
        for thread in self._threads:
            thread.put(partial(thread.tracker.tell, examples, step), step)

    def close(self, *, failed: bool = False) -> None:
        """Send what waits, and close the trackers, once. `failed`: the run ends with an error or an interruption."""
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.close(failed=failed)
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                self._say(
                    f"warning: {thread.tracker.name} has not answered for {PATIENCE:.0f} seconds and may lack the end "
                    "of this run; the run's folder has all of it"
                )


class _Thread(threading.Thread):
    """The thread that a tracker works in. The process does not wait for it to end."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(name=f"tracker {outlet.tracker.name}", daemon=True)
        self.tracker = outlet.tracker
        self._outlet = outlet
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def put(self, send: Callable[[], None], step: int) -> None:
        """Leave a message to the thread; where it hangs, only `WAITING` of them."""
        if self._jobs.qsize() < WAITING:
            self._leave(partial(self._outlet.put, send, step))
        else:
            self._outlet.lost += 1

    def catch_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Leave rows of earlier steps to the thread. They are one job, whose length has no bound."""
        self._leave(partial(self._outlet.catch_up, rows))

    def close(self, *, failed: bool) -> None:
        """Leave the end to the thread."""
        self._leave(partial(self._outlet.close, failed=failed))
        self._leave(None)

    def _leave(self, job: Callable[[], None] | None) -> None:
        if self.ident is None:
            self.start()
        self._jobs.put(job)

    def run(self) -> None:
        """Do what is left to the thread."""
        while (job := self._jobs.get()) is not None:
            job()


def measured(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row of metrics.jsonl that have a value.

    >>> measured({"schema": 1, "step": 3, "policy/kl": None, "reward/mean": 0.5})
    {'reward/mean': 0.5}
    """
    return {name: value for name, value in row.items() if name not in ("schema", "step") and value is not None}


@dataclass(eq=False)
class _Message:
    send: Callable[[], None]
    step: int
    failures: int = 0


class Outlet:
    """A tracker with the messages that wait for it. It belongs to one thread. Args: see `Delivery`."""

    def __init__(self, tracker: Tracker, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self.tracker = tracker
        self._say, self._now = say, now
        self._waiting: deque[_Message] = deque()
        self._again = 0.0
        self._latest = 0
        """The latest step of which the tracker has taken a message."""
        self._told = False
        self.lost = 0
        """Messages that were given up."""

    def catch_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the metrics of rows of metrics.jsonl that the tracker lacks."""
        for row in rows:
            step = row["step"]
            if self.tracker.lacks(step):
                self.put(partial(self.tracker.log, measured(row), step), step)

    def put(self, send: Callable[[], None], step: int) -> None:
        """Send a message, after those that wait; it waits itself if that fails, or has just failed."""
        self._waiting.append(_Message(send, step))
        if len(self._waiting) > WAITING:
            self._give_up(self._waiting[0])
        if self._now() >= self._again:
            self._flush()

    def _flush(self) -> None:
        """Send what waits, in its order. After one failure the next message tells whether the tracker takes others.

        What a tracker would drop, because it has taken a later step, is given up.
        """
        suspect: _Message | None = None
        sent = False
        for message in tuple(self._waiting):
            if message.step < self._latest and not self.tracker.takes_earlier:
                self._give_up(message)
                continue
            try:
                message.send()
            except FAULTS as error:
                self._warn(message, error)
                self._again = self._now() + PAUSE
                if suspect is not None:
                    return
                suspect = message
            else:
                self._waiting.remove(message)
                self._latest = max(self._latest, message.step)
                sent = sent or suspect is not None
        if suspect is not None and sent:
            suspect.failures += 1
            if suspect.failures == TRIES:
                self._give_up(suspect)

    def _give_up(self, message: _Message) -> None:
        self._waiting.remove(message)
        self.lost += 1

    def _warn(self, message: _Message, error: BaseException) -> None:
        if not self._told:
            self._told = True
            self._say(
                f"warning: {self.tracker.name} failed in step {message.step} ({type(error).__name__}: {error}); "
                "the run goes on, and sends it later what it missed"
            )

    def close(self, *, failed: bool) -> None:
        """Send what waits, say what the tracker lacks, and close it."""
        self._flush()
        lacks = self.lost + len(self._waiting)
        if lacks:
            messages = "message" if lacks == 1 else "messages"
            self._say(f"warning: {self.tracker.name} lacks {lacks} {messages} of this run; the run's folder has them")
        try:
            self.tracker.close(failed=failed)
        except FAULTS as error:
            self._say(f"warning: {self.tracker.name} did not close ({type(error).__name__}: {error})")

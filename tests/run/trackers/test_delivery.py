"""Trackers that fail: the run goes on, the others get everything, and the one that failed gets later what it missed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from refinerl.run.trackers import Delivery, Example, delivery
from refinerl.run.trackers.delivery import PAUSE, Outlet
from refinerl.run.trackers.examples import COLUMNS, due, markdown, shown
from toy import Toy, metrics


class Recording:
    """A tracker that can be told to fail."""

    def __init__(self, name: str = "one", sent: int = 0, takes_earlier: bool = True) -> None:
        self.name, self.sent, self.takes_earlier = name, sent, takes_earlier
        self.got: list[tuple[str, int]] = []
        self.fails: Any = lambda kind, step: False
        self.calls = 0

    def lacks(self, step: int) -> bool:
        return step > self.sent

    def _take(self, kind: str, step: int) -> None:
        self.calls += 1
        if self.fails(kind, step):
            raise ConnectionError("no \x1b network")
        self.got.append((kind, step))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._take("log", step)

    def tell(self, examples: Sequence[Example], step: int) -> None:
        self._take("tell", step)

    def close(self, *, failed: bool) -> None:
        self._take(f"close {failed}", 0)


class Run:
    """What is sent to a tracker, at a time of the test's, in the test's thread."""

    def __init__(self, tracker: Recording) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.tracker = tracker
        self.outlet = Outlet(tracker, self.said.append, lambda: self.now)

    def steps(self, *steps: int) -> None:
        for step in steps:
            self.outlet.put(partial(self.tracker.log, {"reward/mean": 0.5}, step), step)
            self.outlet.put(partial(self.tracker.tell, [], step), step)


def everything(*steps: int) -> list[tuple[str, int]]:
    return [(kind, step) for step in steps for kind in ("log", "tell")]


def test_a_tracker_that_raises_in_each_call() -> None:
    """It is said once, and what it lacks is said at the end. The other one gets everything."""
    broken, whole, said = Recording("broken"), Recording("whole"), []
    broken.fails = lambda kind, step: True
    delivery = Delivery([broken, whole], said.append)
    for step in range(1, 101):
        delivery.log({"reward/mean": 0.5}, step)
        delivery.tell([], step)
    delivery.close()
    assert whole.got == [*everything(*range(1, 101)), ("close False", 0)]
    assert said == [
        "warning: broken failed in step 1 (ConnectionError: no \x1b network); the run goes on, and sends it later what "
        "it missed",
        "warning: broken lacks 200 messages of this run; the run's folder has them",
        "warning: broken did not close (ConnectionError: no \x1b network)",
    ]
    assert broken.calls <= 5


def test_a_tracker_that_calls_exit() -> None:
    """SystemExit would end its thread without a word."""
    broken, said = Recording("broken"), []
    broken.fails = lambda kind, step: sys.exit("no licence")
    delivery = Delivery([broken], said.append)
    delivery.log({"reward/mean": 0.5}, 1)
    delivery.close()
    assert said == [
        "warning: broken failed in step 1 (SystemExit: no licence); the run goes on, and sends it later what it missed",
        "warning: broken lacks 1 message of this run; the run's folder has them",
        "warning: broken did not close (SystemExit: no licence)",
    ]


def test_a_tracker_that_hangs(monkeypatch) -> None:
    """The run neither waits for it in a step, nor forever at its end."""
    monkeypatch.setattr(delivery, "PATIENCE", 0.2)
    monkeypatch.setattr(delivery, "WAITING", 10)
    hanging, whole, said = Recording("hanging"), Recording("whole"), []
    end = threading.Event()
    hanging.fails = lambda kind, step: not end.wait(60)
    sending = Delivery([hanging, whole], said.append)
    for step in range(1, 6):
        sending.log({"reward/mean": 0.5}, step)
    sending.close()
    end.set()
    assert whole.got == [*(("log", step) for step in range(1, 6)), ("close False", 0)]
    assert said == [
        "warning: hanging has not answered for 0 seconds and may lack the end of this run; the run's folder has all "
        "of it"
    ]


def test_a_tracker_that_recovers_gets_everything_in_its_order() -> None:
    tracker = Recording()
    run = Run(tracker)
    run.steps(1)
    tracker.fails = lambda kind, step: True
    run.steps(2, 3)
    tracker.fails = lambda kind, step: False
    run.steps(4)
    assert tracker.got == everything(1)  # it is left alone for a while
    run.now += PAUSE
    run.steps(5)
    assert tracker.got == everything(1, 2, 3, 4, 5)
    run.outlet.close(failed=False)
    assert len(run.said) == 1


def test_what_waits_at_the_end_is_sent() -> None:
    tracker = Recording()
    run = Run(tracker)
    tracker.fails = lambda kind, step: True
    run.steps(1, 2)
    tracker.fails = lambda kind, step: False
    run.outlet.close(failed=True)
    assert tracker.got == [*everything(1, 2), ("close True", 0)]


def test_a_message_that_a_tracker_never_takes_does_not_hold_up_the_others() -> None:
    tracker = Recording()
    tracker.fails = lambda kind, step: (kind, step) == ("tell", 2)
    run = Run(tracker)
    for step in range(1, 9):
        run.steps(step)
        run.now += PAUSE
    run.outlet.close(failed=False)
    assert [message for message in tracker.got if message[1]] == [
        m for m in everything(*range(1, 9)) if m != ("tell", 2)
    ]
    assert run.said[1:] == ["warning: one lacks 1 message of this run; the run's folder has them"]


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(delivery, "WAITING", 4)
    tracker = Recording()
    tracker.fails = lambda kind, step: True
    run = Run(tracker)
    run.steps(1, 2, 3, 4)
    tracker.fails = lambda kind, step: False
    run.outlet.close(failed=False)
    assert tracker.got == [*everything(3, 4), ("close False", 0)]
    assert run.said[1:] == ["warning: one lacks 4 messages of this run; the run's folder has them"]


def test_a_resumed_run_sends_what_a_tracker_lacks() -> None:
    """It failed at the end of the earlier start, or the run has it only now."""
    old, new, said = Recording(sent=2), Recording(sent=-1), []
    sending = Delivery([old, new], said.append)
    sending.catch_up([{"schema": 1, "step": step, "reward/mean": None} for step in range(4)])
    sending.close()
    assert old.got == [("log", 3), ("close False", 0)]
    assert new.got == [*(("log", step) for step in range(4)), ("close False", 0)]
    assert not said


def test_a_long_run_gets_a_new_tracker(monkeypatch) -> None:
    """Rows of earlier steps are left to the thread faster than a tracker takes them; most of them were dropped."""
    monkeypatch.setattr(delivery, "WAITING", 10)
    new, said, begin = Recording(sent=-1), [], threading.Event()
    new.fails = lambda kind, step: not begin.wait(60)
    sending = Delivery([new], said.append)
    sending.catch_up([{"schema": 1, "step": step, "reward/mean": 0.5} for step in range(100)])
    sending.log({"reward/mean": 0.5}, 100)
    sending.tell([], 100)
    begin.set()
    sending.close()
    assert new.got == [*(("log", step) for step in range(101)), ("tell", 100), ("close False", 0)]
    assert not said


@pytest.mark.parametrize("takes_earlier", [True, False])
def test_a_step_that_fails_while_later_ones_are_taken(takes_earlier: bool) -> None:
    """It is sent after them, unless the tracker would drop it without an error; then the run says that it lacks it."""
    tracker = Recording(takes_earlier=takes_earlier)
    run = Run(tracker)
    tracker.fails = lambda kind, step: (kind, step) == ("log", 2)
    for step in (1, 2, 3):
        run.steps(step)
        run.now += PAUSE
    tracker.fails = lambda kind, step: False
    run.steps(4)
    run.outlet.close(failed=False)
    late = [("log", 2)] if takes_earlier else []
    taken = [*everything(1), ("tell", 2), ("log", 3), *late, ("tell", 3), *everything(4)]
    assert tracker.got == [*taken, ("close False", 0)]
    lacking = ["warning: one lacks 1 message of this run; the run's folder has them"]
    assert run.said[1:] == ([] if takes_earlier else lacking)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Stand-ins for wandb, which raises in each call, and for trackio, by what they have got."""
    got: dict[str, list[dict[str, Any]]] = {"trackio": []}

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    def take(values: dict[str, Any], step: int) -> None:
        got["trackio"].append({"step": step, **values})

    def module(log: Any) -> Any:
        run = SimpleNamespace(id="id", log=log, finish=lambda **_: log({}, step=-1))
        return SimpleNamespace(init=lambda **_: run, Table=refuse, Trace=lambda **fields: fields)

    monkeypatch.setitem(sys.modules, "wandb", module(refuse))
    monkeypatch.setitem(sys.modules, "trackio", module(take))
    return got


def test_a_run_goes_on_when_a_tracker_fails(toy: Toy, tmp_path, capsys, services) -> None:
    words = ("telemetry.trackers=[wandb,trackio]", "trainer.steps=3", "telemetry.completions=1")
    assert toy.run(tmp_path / "run", *words) == 0
    out = capsys.readouterr().out
    assert out.count("warning: wandb failed") == 1
    assert "warning: wandb failed in step 1 (ConnectionError: no network)" in out
    assert "warning: wandb lacks 6 messages" in out
    rows = metrics(tmp_path / "run")
    got = [row for row in services["trackio"] if "reward/mean" in row]
    assert [row["step"] for row in got] == [1, 2, 3]
    for sent, row in zip(got, rows, strict=True):
        assert sent == {name: value for name, value in row.items() if value is not None and name != "schema"}
    assert [len(row["completions"]) for row in services["trackio"] if "completions" in row] == [1, 1, 1]
    assert list(json.loads((tmp_path / "run" / "trackers.json").read_text())) == ["schema", "trackio"]


def test_a_run_can_leave_responses_out(toy: Toy, tmp_path, services) -> None:
    words = ("telemetry.trackers=[trackio]", "trainer.steps=4")
    assert toy.run(tmp_path / "none", *words, "telemetry.completions=0") == 0
    assert not [row for row in services["trackio"] if "completions" in row]
    assert toy.run(tmp_path / "some", *words, "telemetry.completions_every=3") == 0
    assert [row["step"] for row in services["trackio"] if "completions" in row] == [3, 4]


def test_responses_are_sent_a_hundred_times_by_default() -> None:
    assert [step for step in range(8) if due(step, 7, 0)] == [1, 2, 3, 4, 5, 6, 7]
    assert len([step for step in range(2001) if due(step, 2000, 0)]) == 100


def test_markdown_has_no_meaning_in_a_text() -> None:
    one = Example(1, "p", 0, "```\n# heading", "<b>", None, None, None, None, accepted=False)
    assert markdown([one]) == "**step 1, sample 0**: reward none\n\n    ```\n    # heading\n\ny:\n\n    <b>"
    assert one.cells() == [getattr(one, name) for name in COLUMNS]
    assert shown("a\u202eb") == "a\\u202eb"

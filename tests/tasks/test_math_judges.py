"""The processes of math-verify: their limits, their ends and their replacements."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from refinerl.tasks import math_judges, math_worker
from refinerl.tasks.math_judges import MathJudges

HANGS = r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}"


@pytest.fixture
def judges():
    made = MathJudges(seconds=1.0)
    yield made
    made.close()


def process(judges):
    return judges._idle[0]._process


def test_a_right_answer_that_is_no_mathematics(judges):
    assert judges.compare([("", "1"), ("$1$", None), ("", None)]) == ["unreadable", "different", "unreadable"]


def test_nothing_to_compare_starts_nothing(judges):
    assert judges.compare([]) == []
    assert process(judges) is None


def test_a_process_that_is_killed_while_idle_is_replaced(judges):
    """No response is to blame."""
    assert judges.compare([("1", "1")]) == ["equal"]
    first = process(judges)
    first.kill()
    first.wait()
    assert judges.compare([("1", "1")]) == ["equal"]
    assert process(judges).pid != first.pid


def test_a_process_that_ends_while_it_compares_is_a_crash(judges):
    assert judges.compare([("1", "1")]) == ["equal"]
    threading.Timer(0.3, process(judges).kill).start()
    assert judges.compare([("1", HANGS), ("1", "1")]) == ["crash", "equal"]


def test_a_process_that_sleeps_is_killed_by_the_clock(judges, monkeypatch):
    """Processor time alone would never end it."""
    monkeypatch.setattr(math_judges, "PATIENCE", 2)
    assert judges.compare([("1", "1")]) == ["equal"]
    process(judges).send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    assert judges.compare([("1", "1"), ("1", "2")]) == ["timeout", "different"]
    assert time.monotonic() - begun >= math_judges.PATIENCE * judges.seconds


def test_an_interruption_leaves_no_answer_behind(judges, monkeypatch):
    """The next call does not read it."""
    assert judges.compare([("1", "1")]) == ["equal"]

    def interrupted(self, *, ready):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(math_judges._Judge, "verdict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            judges.compare([("1", "1")])
    assert judges.compare([("1", "2")]) == ["different"]


def test_a_process_that_does_not_start_is_our_fault(judges, monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('it is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"did not start .*ImportError: it is broken"):
        judges.compare([("1", "1")])


PARENT = """
import os, signal, sys, threading, time
from refinerl.tasks.math_judges import MathJudges
judges = MathJudges(seconds=1.0)
judges.compare([("1", "1")])
print(judges._idle[0]._process.pid, flush=True)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
judges.compare([("1", sys.argv[1])])
"""


@pytest.mark.slow
def test_a_hanging_process_does_not_outlive_a_killed_run():
    done = subprocess.run([sys.executable, "-c", PARENT, HANGS], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    place = Path("/proc") / done.stdout.strip()
    until = time.monotonic() + 60
    while place.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not place.exists()


def test_memory_is_limited(judges):
    assert judges.compare([("1", "1")]) == ["equal"]
    limits = Path(f"/proc/{process(judges).pid}/limits").read_text()
    assert re.search(rf"Max address space +{math_worker.MEMORY} +{math_worker.MEMORY} +bytes", limits)

"""Hostile programs in bulk, after which nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from leaks import descendants, leaked, processes, resources
from outside import DATA, needs_data
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test
from sandbox_modes import FULL, Mode, in_each_mode, in_mode

SOAK = int(os.environ.get("REFINERL_SOAK", "500"))


def torture() -> tuple[list[Program], list[list[str]]]:
    """The programs of both files, and the outcomes that each may have."""
    programs, expected = [], []
    for name in ("torture", "torture_call"):
        for line in (DATA / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if name == "torture":
                tests = [Test(row["stdin"], row["hidden_output"])]
            else:
                tests = [Test(given, answer) for given, answer in zip(row["inputs"], row["outputs"], strict=True)]
            programs.append(Program(row["code"], tests, fn_name=row.get("fn_name")))
            expected.append(row["expected"].split("|"))
    return programs, expected


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=4) as box:
        yield box


@needs_data
@pytest.mark.slow
def test_torture(box: Sandbox) -> None:
    """Every hostile program ends as it must; then the machine is as before and the judge judges right."""
    programs, expected = torture()
    limits = Limits(wall_seconds=8, cpu_seconds=4)
    programs = [Program(p.source, p.tests, fn_name=p.fn_name, limits=limits) for p in programs]
    places = ("~/refinerl_pwned", "/tmp/refinerl_state", "/tmp/fill", "/tmp/s", "answer.txt")
    marks = [
        path for path in (Path(place).expanduser() for place in places) if not path.exists()
    ]  # others' stay theirs
    box.judge([Program("print(1)", [Test("", "1")] * 8)])
    before, files = resources(), sorted(os.listdir("/tmp"))
    verdicts = box.judge(programs)
    wrong = [
        (program.source[:60], verdict.outcome.value, outcomes)
        for program, verdict, outcomes in zip(programs, verdicts, expected, strict=True)
        if verdict.outcome.value not in outcomes
    ]
    assert wrong == []
    assert leaked(before) == {}
    assert "Z" not in descendants(os.getpid()).values()
    assert [str(path) for path in marks if path.exists()] == []
    assert [name for name in os.listdir("/tmp") if name not in files and name.isdigit()] == []
    good = box.judge([Program("print(int(input()) * 2)", [Test(str(n), str(2 * n)) for n in range(40)])])
    assert good[0].outcome is Outcome.passed


def test_close_leaves_nothing() -> None:
    before = resources()
    with Sandbox(workers=3) as box:
        box.judge([Program("print(1)", [Test("", "1")] * 6)])
        assert resources()["processes"] > before["processes"]
    assert leaked(before) == {}


def test_dropping_without_close_leaves_nothing() -> None:
    before = resources()
    box = Sandbox(workers=2)
    box.judge([Program("print(1)", [Test("", "1")])])
    del box
    assert leaked(before) == {}


@pytest.mark.slow
def test_lost_zygote_is_replaced_and_its_test_judged_again(box: Sandbox) -> None:
    """Every process of the sandbox is killed in the middle of a batch; the verdicts are right all the same."""
    own = descendants(os.getpid())  # an interpreter comes before its children, whose end it would report as a verdict
    sleepers = [Program(f"import time\ntime.sleep(1)\nprint({n})", [Test("", str(n))]) for n in range(4)]
    verdicts: list[Any] = []
    judge = threading.Thread(target=lambda: verdicts.extend(box.judge(sleepers)))
    judge.start()
    wait_until(lambda: len(descendants(os.getpid()).keys() - own.keys()) >= 4)
    for pid in own:
        with suppress(ProcessLookupError):  # the end of one is the end of those below it
            os.kill(pid, signal.SIGKILL)
    judge.join()
    assert [verdict.outcome for verdict in verdicts] == [Outcome.passed] * 4


def test_test_that_loses_its_zygote_twice_is_our_fault() -> None:
    """Whatever runs a test is killed each time; after the second loss the verdict says that it is not the program's."""
    with Sandbox(workers=1) as box:
        if not all(row.on for row in box.isolation):
            pytest.skip("the family of a zygote looks otherwise without namespaces")
        sleeper = Program("import time\ntime.sleep(30)", [Test("", "")], limits=Limits(wall_seconds=60))
        verdicts: list[Any] = []
        judge = threading.Thread(target=lambda: verdicts.extend(box.judge([sleeper])))
        judge.start()
        while judge.is_alive():
            table = processes()
            # This process, the outer process, the zygote, the test.
            for zygote, (outer, _) in table.items():
                has_child = any(parent == zygote for parent, _ in table.values())
                if has_child and outer in table and table[outer][0] == os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(zygote, signal.SIGKILL)
            judge.join(0.05)
    assert verdicts[0].outcome is Outcome.sandbox_error
    assert verdicts[0].pass_rate == 0


def wait_until(true: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)


CHILD = """
import signal, sys
from refinerl.sandbox import Limits, Program, Sandbox, Test
signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a shell's background job
box = Sandbox(workers=2, limits=Limits(wall_seconds=600, cpu_seconds=600))
print("ready", flush=True)
input()
box.judge([Program("while True: pass", [Test("", "")] * 4)])
"""


def start_endless_judge() -> tuple[subprocess.Popen[str], set[int]]:
    judge = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert judge.stdin is not None
    assert judge.stdout is not None
    assert judge.stdout.readline() == "ready\n"
    idle = len(descendants(judge.pid))
    judge.stdin.write("\n")
    judge.stdin.flush()
    try:
        wait_until(lambda: len(descendants(judge.pid)) >= idle + 2)
    except AssertionError:
        judge.kill()  # it would judge for ten minutes, and slow down all tests after this one
        raise
    return judge, set(descendants(judge.pid))


def test_sigkill_of_the_parent_leaves_no_child() -> None:
    """Neither zygotes nor endless tests outlive the trainer, however it dies."""
    judge, family = start_endless_judge()
    judge.kill()
    judge.communicate()
    wait_until(lambda: not family & {pid for pid, (_, state) in processes().items() if state != "Z"})


def test_interrupt_stops_within_a_second() -> None:
    """Ctrl-C raises KeyboardInterrupt in the judging thread and leaves nothing behind."""
    judge, family = start_endless_judge()
    start = time.monotonic()
    judge.send_signal(signal.SIGINT)
    try:
        judge.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        judge.kill()
        raise
    assert time.monotonic() - start < 5, "much more than a second, even on a busy machine"
    assert judge.returncode == -signal.SIGINT
    assert not family & {pid for pid, (_, state) in processes().items() if state != "Z"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """This process, also where it is a shell's background job, which ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_sandbox_judges_on(box: Sandbox) -> None:
    """The batch is lost, the zygotes are not."""
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        box.judge([Program("while True: pass", [Test("", "")] * 8, limits=Limits(wall_seconds=60, cpu_seconds=60))])
    timer.join()
    assert box.judge([Program("print(1)", [Test("", "1")])])[0].outcome is Outcome.passed


def test_threads_share_a_sandbox(box: Sandbox) -> None:
    results: dict[int, Any] = {}

    def judge(n: int) -> None:
        results[n] = box.judge([Program(f"print({n})", [Test("", str(n))])])[0].outcome

    threads = [threading.Thread(target=judge, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), Outcome.passed)


@pytest.mark.slow
@in_each_mode
def test_soak(mode: Mode) -> None:
    """Programs of every kind without end (REFINERL_SOAK of them): memory, descriptors and processes stay flat."""
    count = SOAK if mode == FULL or SOAK > 500 else 200
    leaks, growth = in_mode(mode, "from leaks import soak\nprint(json.dumps(soak(ARGUMENTS[0])))", count)
    assert leaks == {}
    # The first round warms allocators up; from then on growth would be a leak, and noise is a few megabytes.
    assert growth < 20_000, "kilobytes"

"""What ends one rank ends all, is said once, and takes no time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from launching import environment, free_port

RANK = """
import ctypes, json, os, resource, signal, socket, sys, threading, time
from refinerl.engines import lifeline
from refinerl.engines.world import Launched, dist
launched = Launched.read()
what = sys.argv[1 + launched.rank]
if what == "die at once":  # its name and its phase arrive together
    words = []
    def send(connection, word):
        words.append(json.dumps(word) + chr(10))
        if len(words) == 2:
            connection.sendall("".join(words).encode())
    lifeline._send = send
store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
if "DEAF" in os.environ and launched.rank == 0:  # its threads that read get no processor
    lifeline.Lifeline._listen = lambda line, peer, words: None
if "APART" in os.environ:
    time.sleep(launched.rank)
line = lifeline.Lifeline(launched, store)
if "APART" in os.environ:
    line.fail("error: choose trainer.batch=16", 2)
if "ASK" in os.environ:  # what a run does: it finishes its step
    line.ask = lambda number: print("terminated: finishing the step", file=sys.stderr, flush=True) or True
line.timeout = float(os.environ["TIMEOUT"])
if "DEAF" in os.environ and launched.rank:  # acknowledge late, as the kernel does where messages go both ways
    def slowly():
        while True:
            line._peers[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            time.sleep(0.001)
    threading.Thread(target=slowly, daemon=True).start()
if "SLOW" in os.environ:  # what a killed rank leaves behind is noticed before the message is ready
    kill = lifeline.Lifeline._kill
    lifeline.Lifeline._kill = lambda line, ranks: (kill(line, ranks), time.sleep(1))
if "BEAT" in os.environ:
    line.begin(line.timeout)
line.phase({"abort": "update of step 7", "late": "after score of step 7"}.get(what, "score of step 7"))
print("begun", flush=True)
sys.stdin.readline()
if what.startswith("die"):
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "abort":  # as NCCL's watchdog does where a collective timed out
    time.sleep(line.timeout)
    os.abort()
elif what == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
elif what == "late":
    while launched.rank == 0 and len(line._phases) < launched.size:  # the others' words are read by other threads
        time.sleep(0.01)
    line.late()
elif what == "fail":
    if "DEAF" in os.environ:
        time.sleep(3.5)  # the others' heartbeats come
        line.phase("update of step 7")
    line.fail("error: choose trainer.batch=16", 2)
elif what == "fail without files":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
    line.fail("error: choose trainer.batch=16", 2)
elif what == "fail without a place":
    def unreadable():
        raise OSError(5, "Input/output error")
    line.standing = unreadable
    ctypes.CDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)
elif what == "end":
    line.close()
elif what == "end first":
    line.close()
    time.sleep(20)
elif what == "fail last":
    while 0 not in line._done:
        time.sleep(0.01)
    line.fail("error: choose trainer.batch=16", 2)
elif what == "end when another fails":
    line._ended.wait()
    line.close()
elif what == "fail and end slowly":
    leave = lifeline._exit
    lifeline._exit = lambda code: (time.sleep(1), leave(code))
    line.fail("error: choose trainer.batch=16", 2)
else:  # as in a collective that never returns: no handler of Python's runs
    ctypes.CDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)
"""


def start(*what: str, timeout: float = 0, **env: str) -> list[subprocess.Popen[str]]:
    """Start the ranks, each at the point where it does what it is told to."""
    for _ in range(3):  # somebody may take a free port before the ranks do
        ranks = started(*what, timeout=timeout, **env)
        if all(process.stdout.readline() == "begun\n" for process in ranks):
            return ranks
        for process in ranks:
            process.kill()
        said = "".join(process.communicate()[1] for process in ranks)
        if "EADDRINUSE" not in said:
            break
    raise AssertionError(said)


def started(*what: str, timeout: float = 0, **env: str) -> list[subprocess.Popen[str]]:
    port = str(free_port())
    shared = {"WORLD_SIZE": str(len(what)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TIMEOUT": str(timeout)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([sys.executable, "-c", RANK, *what], env=environment(RANK=str(rank), **shared, **env), **pipes)
        for rank in range(len(what))
    ]


def ends(*what: str, timeout: float = 0, **env: str) -> list[tuple[int, str]]:
    """Exit code and standard error of each rank; collectives wait `timeout` seconds, or there are none yet."""
    return ended(start(*what, timeout=timeout, **env))


def ended(ranks: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Let the ranks go on; exit code and standard error of each."""
    begun = time.monotonic()
    for process in ranks:
        if process.poll() is None:
            let_go_on(process)
    said = [process.communicate(timeout=60)[1] for process in ranks]
    assert time.monotonic() - begun < 30
    return [(process.returncode, text) for process, text in zip(ranks, said, strict=True)]


def let_go_on(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # another one's end may have ended it in this moment
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.mark.parametrize(("dead", "how"), [(0, "die"), (1, "die"), (1, "die at once")])
@pytest.mark.slow
def test_a_killed_rank_ends_the_others(dead, how):
    what = ["wait", "wait", "wait"]
    what[dead] = how
    found = ends(*what)
    assert found[dead][0] == -signal.SIGKILL
    others = [found[rank] for rank in range(3) if rank != dead]
    assert [code for code, _ in others] == [1, 1]
    if dead:  # rank 0 speaks for all; without it each speaks for itself
        assert "".join(text for _, text in found).count("rank 1 died in phase score of step 7") == 1
    else:
        assert all("rank 0 died" in text for _, text in others)


@pytest.mark.slow
def test_a_rank_that_nccls_watchdog_aborts_is_told_from_one_that_is_killed():
    found = ends("wait", "abort", "wait", timeout=2)
    assert [code for code, _ in found] == [1, -signal.SIGABRT, 1]
    said = "".join(text for _, text in found if "rank 1 died" in text)
    assert said.count("rank 1 died in phase update of step 7 without a word after ") == 1
    assert "engines.timeout = 2 seconds; rank 0 in score of step 7 was not with it" in said


@pytest.mark.slow
def test_a_failure_is_said_once_with_its_exit_code():
    """Also where all ranks find the same mistake."""
    for what in (["wait", "fail", "wait"], ["fail", "fail", "fail"]):
        found = ends(*what)
        assert [code for code, _ in found] == [2, 2, 2]
        assert "".join(text for _, text in found) == "error: choose trainer.batch=16\n"


@pytest.mark.slow
def test_a_failure_of_the_first_rank_is_said_once_though_it_has_not_read_all_that_was_sent():
    """Its end then resets the connection, and what it sent last was lost: it was said to have died."""
    found = ends("fail", "wait", "wait", timeout=30, BEAT="1", DEAF="1")
    assert found == [(2, "error: choose trainer.batch=16\n"), (2, ""), (2, "")]


@pytest.mark.slow
def test_a_failure_is_said_once_though_the_ranks_arrive_one_after_another():
    """The first to arrive ended all that had come; a later one found nobody and said so too."""
    found = ended(started("wait", "wait", "wait", APART="1"))
    assert found == [(2, "error: choose trainer.batch=16\n"), (2, ""), (2, "")]


@pytest.mark.slow
def test_a_failure_is_said_once_though_no_file_can_be_opened():
    assert ends("fail without files", "wait") == [(2, "error: choose trainer.batch=16\n"), (2, "")]


@pytest.mark.slow
def test_ranks_end_though_the_place_to_resume_cannot_be_read():
    (code, said), _ = ends("fail without a place", "die")
    assert code == 1
    assert "rank 1 died in phase score of step 7" in said
    assert "could not be found out (OSError: [Errno 5] Input/output error)" in said


@pytest.mark.slow
@pytest.mark.parametrize("what", [("fail", "wait"), ("wait", "fail")])
def test_ranks_end_though_nobody_reads_what_they_say(what):
    ranks = start(*what)
    for process in ranks:
        process.stderr.close()
        process.stderr = None
    for process in ranks:
        let_go_on(process)
    assert [process.wait(timeout=30) for process in ranks] == [2, 2]


@pytest.mark.slow
def test_ranks_that_are_done_end_in_peace():
    assert ends("end", "end") == [(0, ""), (0, "")]


@pytest.mark.slow
def test_a_failure_is_said_once_though_the_first_rank_was_done():
    """It still writes its report. The other got no answer for ten seconds, and both spoke."""
    begun = time.monotonic()
    assert ends("end first", "fail last") == [(2, "error: choose trainer.batch=16\n"), (2, "")]
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_rank_that_ends_while_it_tells_the_others_to_end_has_the_code_of_the_failure():
    found = ends("end when another fails", "fail and end slowly")
    assert found == [(2, "error: choose trainer.batch=16\n"), (2, "")]


@pytest.mark.slow
def test_a_launcher_that_terminates_the_ranks_left_does_not_hide_which_one_died():
    """It sends SIGTERM as soon as it sees a rank dead, and on a busy machine before the others have read the news."""
    ranks = start("wait", "wait", "wait", ASK="1")
    ranks[0].send_signal(signal.SIGSTOP)
    ranks[1].kill()
    ranks[1].wait()
    for left in (0, 2):
        ranks[left].terminate()
    ranks[0].send_signal(signal.SIGCONT)
    found = ended(ranks)
    assert [code for code, _ in found] == [1, -signal.SIGKILL, 1]
    said = "".join(text for _, text in found)
    assert said.count("rank 1 died in phase score of step 7") == 1
    assert "terminated" not in said


@pytest.mark.slow
def test_a_terminated_rank_ends_all_and_says_so_once():
    ranks = start("wait", "wait")
    for process in ranks:
        process.terminate()
    found = ended(ranks)
    assert [code for code, _ in found] == [128 + signal.SIGTERM] * 2
    (said,) = [text for _, text in found if text]
    assert re.fullmatch(r"stopped: rank [01] was terminated \(SIGTERM\) in phase score of step 7; --resume .*\n", said)


@pytest.mark.slow
@pytest.mark.parametrize(("stopped", "slow"), [(0, False), (1, False), (0, True), (1, True)])
def test_a_rank_that_is_stopped_is_named_and_killed(stopped, slow):
    """A collective would tell nobody whom it waited for, and nothing of the connection ends.

    Once it was killed, it was sometimes said to have died without a word.
    """
    what = ["wait", "wait"]
    what[stopped] = "stop"
    found = ends(*what, timeout=3, BEAT="1", **({"SLOW": "1"} if slow else {}))
    assert [code for code, _ in found] == [-signal.SIGKILL if rank == stopped else 1 for rank in range(2)]
    said = found[1 - stopped][1]
    assert said.count(f"stopped: rank {stopped} has been silent for ") == 1
    assert "seconds in phase score of step 7 (engines.timeout = 3 seconds): its process is stopped" in said


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_is_stopped_is_named_and_killed_by_one_that_was_itself_paused(stopped):
    """A rank that was paused excuses the others at first: it has not read what they sent. A stopped one sends nothing.

    It was said to be in its phase for long, and stayed there for good.
    """
    ranks = start(*(["stop", "late"] if stopped == 0 else ["late", "stop"]), timeout=6, BEAT="1")
    let_go_on(ranks[stopped])
    os.waitid(os.P_PID, ranks[stopped].pid, os.WSTOPPED)
    paused = ranks[1 - stopped]
    paused.send_signal(signal.SIGSTOP)
    time.sleep(3)
    paused.send_signal(signal.SIGCONT)
    time.sleep(0.8)  # a heartbeat, which notices the pause
    let_go_on(paused)
    paused.wait(timeout=60)
    if ranks[stopped].poll() is None:
        time.sleep(1)
    killed = ranks[stopped].poll()
    ranks[stopped].kill()
    found = ended(ranks)
    assert (killed, found[1 - stopped][0]) == (-signal.SIGKILL, 1)
    assert f"stopped: rank {stopped} has been silent for " in found[1 - stopped][1]


@pytest.mark.slow
@pytest.mark.parametrize("waiting", [0, 1])
def test_a_rank_that_hangs_is_named_where_another_waited_for_it(waiting):
    what = ["wait", "wait"]
    what[waiting] = "late"
    found = ends(*what, timeout=20, BEAT="1")
    assert [code for code, _ in found] == [1, 1]
    said = "".join(text for _, text in found)
    assert said.count(f"stopped: rank {1 - waiting} has been in phase score of step 7 for ") == 1
    assert f"seconds while rank {waiting} waited for it (engines.timeout = 20 seconds): raise engines.timeout" in said


@pytest.mark.slow
def test_a_failure_is_said_though_the_first_rank_is_stopped():
    ranks = start("stop", "fail")
    let_go_on(ranks[0])
    os.waitid(os.P_PID, ranks[0].pid, os.WSTOPPED)  # else it may read of the failure first
    let_go_on(ranks[1])
    assert ranks[1].wait(timeout=60) == 2
    ranks[0].kill()
    assert [text for _, text in ended(ranks)] == ["", "error: choose trainer.batch=16\n"]


@pytest.mark.slow
@pytest.mark.parametrize("heard", [True, False])
def test_ranks_of_a_launcher_that_was_killed_end(heard):
    """They would go on in a folder in which a resumed run goes on too. Who reads what they say may be killed too."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TIMEOUT": "20"}
    shared |= {"BEAT": "1", "TORCHELASTIC_RUN_ID": "none"}
    launchers = [
        subprocess.Popen(
            [sys.executable, "-c", script, RANK, "wait", "wait"],
            env=environment(RANK=str(rank), **shared),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for launcher in launchers:
        assert launcher.stdout.readline() == "begun\n"
        if not heard:
            launcher.stderr.close()
            launcher.stderr = None
    for launcher in launchers:
        launcher.kill()
    said = [launcher.communicate(timeout=60)[1] for launcher in launchers]  # waits for the ranks: they hold the pipes
    if heard:
        assert (
            "".join(said)
            == "stopped: the launcher of the ranks has ended, and they with it; --resume goes on from the last "
            "checkpoint\n"
        )

"""A trainer that leaves descriptors open, forks, ignores signals, has few resources; and programs that look for it."""

from __future__ import annotations

import ast
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_modes import BARE_USER, FULL, NO_GROUPS, USER_FULL, Mode, in_each_mode, in_mode, run_in

pytestmark = pytest.mark.slow

SECRET = "70b1d3f9"

DESCRIPTORS = """
import socket, tempfile
with tempfile.TemporaryFile() as answer:
    answer.write(b"70b1d3f9")
    answer.flush()
    for number in (3, 4, 5, 63, 200, 255, 256, 300, 900):
        try: os.fstat(number)
        except OSError: os.dup2(answer.fileno(), number, inheritable=True)
    pair = socket.socketpair()
    for end in pair: end.set_inheritable(True)
    program = '''
import os
found = []
for number in range(3, 4096):
    try: os.fstat(number)
    except OSError: continue
    try: found.append((number, os.pread(number, 8, 0).decode()))
    except OSError: found.append((number, "no file"))
print(found)
'''
    with Sandbox(workers=1) as box:
        call = "def f(n):\\n" + "\\n".join("    " + line for line in program.replace("print(", "return (").splitlines())
        script, function = box.run([Program(program, [Test("")]), Program(call, [Test([1])], fn_name="f")])
print(json.dumps([script.tests[0].output, function.tests[0].value]))
"""


@in_each_mode
def test_descriptors_of_the_trainer_are_not_inherited(mode: Mode) -> None:
    """Libraries leave theirs without close-on-exec, at any number. Descriptor 5 is /dev/null where it must be kept."""
    script, function = in_mode(mode, DESCRIPTORS)
    null = [[5, ""]] if mode == BARE_USER else []
    assert ast.literal_eval(script) == [tuple(item) for item in null]
    assert function == [[4, "no file"], *null]


MEMORY = """
SECRET = "70b1d3f9" * 1000
program = f'''
import os
trainer, found = {os.getpid()}, []
for name in ("mem", "environ", "fd/0", "auxv", "root/etc/passwd", "cwd"):
    try:
        with open(f"/proc/{{trainer}}/{{name}}", "rb") as file: found.append((name, len(file.read(1))))
    except OSError as error:
        if isinstance(error, IsADirectoryError): found.append((name, 0))
print(found)
'''
with Sandbox(workers=1) as box:
    run = box.run([Program(program, [Test("")])])[0].tests[0]
with open("/proc/self/environ", "rb") as file: readable = len(file.read()) > 0
print(json.dumps([run.output, readable, {row.name: row.exposed for row in box.isolation}]))
"""


@in_each_mode
def test_trainer_is_out_of_sight_while_it_judges(mode: Mode) -> None:
    """An ordinary user's processes may read each other's memory where neither namespaces nor Landlock stand between."""
    found, readable, exposed = in_mode(mode, MEMORY)
    assert found == "[]\n"
    assert readable, "afterwards it is as before"
    if mode == BARE_USER:
        assert "the memory of the user's other processes" in exposed["mount_namespace"]


FORKS = """
import signal, threading, time
from leaks import descendants
children, done = [], threading.Event()
def fork():
    while not done.wait(0.01):
        if (pid := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
box = Sandbox(workers=2, limits=Limits(wall_seconds=3))
forker = threading.Thread(target=fork)
forker.start()
source = "import sys, time\\ntime.sleep(0.02)\\nprint(len(sys.stdin.read()))"
program = Program(source, [Test("x" * n, str(n)) for n in range(60)])
verdict = box.judge([program])[0]
done.set()
forker.join()
start = time.monotonic()
box.close()
seconds = time.monotonic() - start
time.sleep(0.2)
left = len(set(descendants(os.getpid())) - set(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(json.dumps([verdict.pass_rate, seconds, left]))
"""


@in_each_mode
def test_trainer_that_forks_while_it_judges(mode: Mode) -> None:
    """Its forks hold copies of the ends that tests and zygotes wait for, and the ends are seen all the same."""
    rate, seconds, left = in_mode(mode, FORKS)
    assert (rate, left) == (1, 0)
    assert seconds < 4, "it would take 5 for each worker"


INHERITS = """
import threading
with Sandbox(workers=2) as box:
    if (pid := os.fork()) == 0:
        try:
            box.judge([Program("print(1)", [Test("", "1")])])
        except SandboxError as error:
            said = "fork" in str(error)
        box.close()
        del box
        os._exit(0 if said else 1)
    status = os.waitpid(pid, 0)[1]
    after = box.judge([Program("print(1)", [Test("", "1")] * 8)])[0].outcome.value
print(json.dumps([status, after]))
"""


@in_each_mode
def test_fork_that_closes_its_copy_ends_nothing(mode: Mode) -> None:
    assert in_mode(mode, INHERITS) == [0, "passed"]


JUDGE = """
(workers,) = ARGUMENTS
try:
    with Sandbox(workers=workers, limits=Limits(wall_seconds=20, cpu_seconds=30)) as box:
        unread = Program("print(1)", [Test("x" * 3_000_000, "1")] * 4)
        stack = Program("print(sum(map(int, input().split())))", [Test("1 2", "3")] * 4)
        print(json.dumps([verdict.outcome.value for verdict in box.judge([unread, stack])]))
except SandboxError as error:
    print(json.dumps(str(error)))
"""


def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def ignore_everything() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def block_everything() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@in_each_mode
@pytest.mark.parametrize("habit", [ignore_children, ignore_everything, block_everything])
def test_trainer_with_other_signals(mode: Mode, habit: object) -> None:
    """An exec inherits the signals that a process ignores or blocks."""
    assert in_mode(mode, JUDGE, 2, prepare=habit) == ["passed", "passed"]  # type: ignore[arg-type]


@in_each_mode
def test_broken_pipe_does_not_end_the_trainer(mode: Mode) -> None:
    """A program that leaves its input unread, and a trainer in which SIGPIPE kills, as the shell's tools have it."""
    pipes = "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    assert in_mode(mode, pipes + JUDGE, 2) == ["passed", "passed"]


REAPS = """
import threading, time
done = threading.Event()
def reap():
    while not done.is_set():
        try: os.waitpid(-1, os.WNOHANG)
        except ChildProcessError: pass
        time.sleep(0.001)
threading.Thread(target=reap).start()
"""


@pytest.mark.parametrize("mode", [FULL, NO_GROUPS, BARE_USER], ids=lambda mode: mode.name)
def test_trainer_that_reaps_every_child(mode: Mode) -> None:
    assert in_mode(mode, REAPS + JUDGE + "done.set()\n", 2) == ["passed", "passed"]


def few_descriptors(soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_soft_limit_of_descriptors_is_raised() -> None:
    assert in_mode(FULL, JUDGE, 24, prepare=lambda: few_descriptors(128, 4096)) == ["passed", "passed"]


def test_hard_limit_of_descriptors_names_the_number_that_is_needed() -> None:
    said = in_mode(FULL, JUDGE, 24, prepare=lambda: few_descriptors(128, 128))
    assert "24 workers need 4" in said
    assert "file descriptors (ulimit -n), and this process may have 128: enough for" in said


def test_few_processes_name_the_number_that_is_needed() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (12, 12))

    said = in_mode(USER_FULL, JUDGE, 24, prepare=few)
    assert "24 workers need up to 120 processes and threads" in said


def test_little_address_space_names_the_number_that_is_needed() -> None:
    """Before there was a check, the process aborted: its threads' arenas left no room."""
    few = 300 << 20
    said = in_mode(FULL, JUDGE, 8, prepare=lambda: resource.setrlimit(resource.RLIMIT_AS, (few, few)))
    assert re.search(r"8 workers need \d{3} MiB of address space \(ulimit -v\), and this process may have 300", said)


def test_truncated_descriptors_are_no_nonsense() -> None:
    """The trainer fills up its descriptors after the start: the message names them."""
    fill = """
import re
import resource
with Sandbox(workers=2) as box:
    box.judge([Program("print(1)", [Test("", "1")])])
    full = []
    try:
        while True: full.append(os.dup(0))
    except OSError: pass
    for descriptor in full[:2]: os.close(descriptor)
    try:
        # The one after it is born while it runs.
        test = box.judge([Program("import time\\ntime.sleep(0.3)\\nprint(1)", [Test("", "1")] * 4)])[0].tests[0]
        said = test.outcome.value + test.stderr
    except SandboxError as error:
        said = str(error)
    for descriptor in full[2:]: os.close(descriptor)
    after = box.judge([Program("print(1)", [Test("", "1")])])[0].outcome.value
print(json.dumps([said, after]))
"""
    said, after = in_mode(FULL, fill, prepare=lambda: few_descriptors(200, 200))
    assert "Too many open files" in said
    assert after == "passed"


LOWER = {
    "processor seconds": (resource.RLIMIT_CPU, 20),
    "stack": (resource.RLIMIT_STACK, 16 << 20),
    "files": (resource.RLIMIT_FSIZE, 0),
    "address space": (resource.RLIMIT_AS, 600 << 20),
    "core files": (resource.RLIMIT_CORE, 0),
    "locked memory": (resource.RLIMIT_MEMLOCK, 0),
}


@pytest.mark.parametrize("mode", [FULL, BARE_USER], ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", LOWER)
def test_lower_limits_of_the_trainer_are_kept(mode: Mode, name: str) -> None:
    """A hard limit below ours is not ours to raise: the smaller holds."""
    kind, most = LOWER[name]
    assert in_mode(mode, JUDGE, 2, prepare=lambda: resource.setrlimit(kind, (most, most))) == ["passed", "passed"]


RAW_THREADS = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
stack = libc.mmap(None, ctypes.c_size_t(1 << 16), 3, 0x22, -1, ctypes.c_long(0))
code = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
# clone(VM|FS|FILES|SIGHAND|THREAD|SYSVSEM, stack); the new thread calls pause() for ever and never sees Python.
clone = bytes.fromhex("bf000f050048be") + (stack + 65536 - 64).to_bytes(8, "little")
clone += bytes.fromhex("31d24531d24531c0b8380000000f0585c07401c3b8220000000f05ebf7")
ctypes.memmove(code, clone, len(clone))
count = 0
spawn = ctypes.CFUNCTYPE(ctypes.c_int)(code)
while count < 2500:
    if spawn() <= 0: break
    count += 1
time.sleep(0.3)
print(count)
"""


@in_each_mode
def test_threads_are_bounded_whoever_makes_them(mode: Mode) -> None:
    """Threads without stacks take no addresses: only a count holds them."""
    ((outcome, output, stderr),) = run_in(mode, RAW_THREADS)
    assert (outcome, stderr) == ("runtime_error", "more than 128 threads at once") or int(output) < 320, (
        outcome,
        output,
    )


@pytest.fixture
def processor_group() -> Iterator[Path]:
    """A control group of the processor, as containers have: sessions have no shares of their own in it."""
    folder = Path(f"/sys/fs/cgroup/cpu/refinerl-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no control group of the processor, version 1, can be made here")
    yield folder
    for _ in range(200):
        try:
            folder.rmdir()
            break
        except OSError:
            time.sleep(0.02)


BUSY = """
busy = Program('''
import threading
def spin():
    while True: pass
for _ in range(100): threading.Thread(target=spin, daemon=True).start()
spin()
''', [Test("", "")], limits=Limits(wall_seconds=4, cpu_seconds=60))
work = "import time\\nstart = time.process_time()\\nwhile time.process_time() - start < 0.3: pass\\nprint(1)"
neighbour = Program(work, [Test("", "1")] * 2, limits=Limits(wall_seconds=2, cpu_seconds=10))
with Sandbox(workers=2) as box:
    verdicts = box.judge([busy, neighbour])
print(json.dumps([[test.outcome.value for test in verdict.tests] for verdict in verdicts]))
"""


@pytest.mark.parametrize("mode", [FULL, NO_GROUPS, USER_FULL], ids=lambda mode: mode.name)
def test_busy_threads_do_not_take_a_neighbours_time(mode: Mode, processor_group: Path) -> None:
    """On one processor, where the neighbour gets a hundredth of it: it is judged again, alone."""

    def enter() -> None:
        if os.geteuid() == 0:
            (processor_group / "cgroup.procs").write_text(str(os.getpid()))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])

    assert in_mode(mode, BUSY, prepare=enter) == [["timeout"], ["passed"] * 2]

"""Attacks on the machine: processes, signals, files, memory, network, kernel interfaces, and on the zygote itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test, TestRun

Attack = Callable[..., TestRun]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256)) as box:
        yield box
        verdicts = box.judge([Program("print(input())", [Test(str(i), str(i)) for i in range(20)])])
        assert verdicts[0].outcome is Outcome.passed, "the judge no longer judges right"


@pytest.fixture
def attack(box: Sandbox) -> Attack:
    """Run a program that prints what it achieved."""
    return lambda source, **options: box.run([Program(source, [Test("")], **options)])[0].tests[0]


def denied(run: TestRun) -> bool:
    return run.outcome is Outcome.runtime_error and any(
        word in run.stderr for word in ("PermissionError", "not permitted", "No such file", "Read-only", "denied")
    )


def system_call(number: int, *arguments: str) -> str:
    """A program that prints the errno of a raw system call."""
    call = f"libc.syscall({', '.join([f'ctypes.c_long({number})', *arguments])})"
    return f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({call}, ctypes.get_errno())"


X86 = os.uname().machine == "x86_64"
x86_numbers = pytest.mark.skipif(not X86, reason="system call numbers of x86-64")


def test_fork(attack: Attack) -> None:
    """No descendants, so nothing outlives a test. Not covered: threads, which end with their process."""
    assert denied(attack("import os\nos.fork()"))


def test_vfork_and_clone_by_number(attack: Attack) -> None:
    """The numbers behind libc's functions. Not covered: clone3's flags, which no filter can see; it does not exist."""
    if not X86:
        pytest.skip("system call numbers of x86-64")
    for number in (56, 57, 58):
        assert attack(system_call(number, "17", "0", "0", "0", "0")).output == "-1 1\n"
    assert attack(system_call(435, "0", "88")).output == "-1 38\n"


def test_subprocess(attack: Attack) -> None:
    """posix_spawn, which uses vfork and exec."""
    assert denied(attack("import subprocess\nsubprocess.run(['/bin/true'])"))


def test_exec(attack: Attack) -> None:
    """Another binary would escape the limits of the interpreter, not those of the kernel; none can start."""
    assert denied(attack("import os, sys\nos.execv('/bin/sh', ['sh'])"))


@x86_numbers
def test_execveat(attack: Attack) -> None:
    """The other exec."""
    assert attack(system_call(322, "0", "b''", "None", "None", "0x1000")).output == "-1 1\n"


def test_signal_to_the_zygote(attack: Attack) -> None:
    """The parent, by its number."""
    assert denied(attack("import os\nos.kill(os.getppid(), 9)"))


def test_signal_to_everyone(attack: Attack) -> None:
    """kill(-1) reaches every process of a user. Signal 0 asks only whether it would be allowed."""
    assert denied(attack("import os\nos.kill(-1, 0)"))


def test_signal_to_the_group(attack: Attack) -> None:
    """The group is the child's own, and still denied."""
    assert denied(attack("import os\nos.kill(0, 0)"))


def test_signal_through_a_pidfd(attack: Attack) -> None:
    """pidfd_open of the parent."""
    assert denied(attack("import os\nos.pidfd_open(os.getppid())"))


def test_signal_through_a_descriptor_owner(attack: Attack) -> None:
    """F_SETOWN makes the kernel signal another process when data arrive."""
    assert denied(attack("import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())"))


def test_limits_of_the_zygote(attack: Attack) -> None:
    """prlimit of another process."""
    assert denied(attack("import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"))


def test_limits_cannot_be_raised(attack: Attack) -> None:
    """Hard limits equal soft ones. Not covered: the stack, which may grow to its own bound within the memory's."""
    source = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)"
    assert attack(source).outcome is Outcome.runtime_error


def test_core_file(attack: Attack) -> None:
    """A crash writes nothing: the limit of core files is 0 and cannot be raised."""
    run = attack("import os, resource\nprint(resource.getrlimit(resource.RLIMIT_CORE), flush=True)\nos.abort()")
    assert (run.outcome, run.output) == (Outcome.runtime_error, "(0, 0)\n")


def test_ptrace(attack: Attack) -> None:
    """PTRACE_TRACEME and PTRACE_ATTACH."""
    run = attack("import ctypes, os\nf = ctypes.CDLL(None).ptrace\nprint(f(0, 0, 0, 0), f(16, os.getppid(), 0, 0))")
    assert run.output == "-1 -1\n"


def test_memory_of_the_parent(attack: Attack) -> None:
    """process_vm_readv and process_vm_writev."""
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for f in (libc.process_vm_readv, libc.process_vm_writev):\n"
        "    print(f(os.getppid(), None, 0, None, 0, 0), ctypes.get_errno())"
    )
    assert attack(source).output == "-1 1\n-1 1\n"


def test_proc_is_not_there(attack: Attack) -> None:
    """No /proc: no memory files, no lists of processes, no descriptors by name (so no /dev/stdin either)."""
    assert denied(attack("open('/proc/self/maps').read()"))


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/root/.bashrc", "/home", "/var", "/sys", "/tmp/x"])
def test_reading_the_host(attack: Attack, path: str) -> None:
    """Files of the host do not exist. Not covered: the interpreter's own library, which is meant to be readable."""
    assert denied(attack(f"import os\nos.stat({path!r}) and open({path!r}).read()"))


def test_reading_this_checkout(attack: Attack) -> None:
    """Answers lie in files beside the trainer: the test's own source is out of reach."""
    assert denied(attack(f"open({str(Path(__file__))!r}).read()"))


def test_installed_packages(attack: Attack) -> None:
    """site-packages, where data sets and this project itself may lie, are hidden."""
    assert (
        "ModuleNotFoundError"
        in attack("import sys, glob\nsys.path += [p + '/site-packages' for p in sys.path]\nimport pip").stderr
    )


def test_relative_paths_out(attack: Attack) -> None:
    """pivot_root leaves nothing above the root."""
    assert denied(attack("open('../' * 40 + 'etc/hostname').read()"))


@pytest.mark.parametrize("path", ["x", "/tmp/x", "/dev/shm/x", "/var/tmp/x", "/dev/x", "/run/x"])
def test_writing_a_file(attack: Attack, path: str) -> None:
    """No writable folder at all, so no state and no full disk."""
    assert denied(attack(f"open({path!r}, 'w').write('x')"))


def test_tempfile(attack: Attack) -> None:
    """The module looks for any writable folder and finds none."""
    run = attack("import tempfile\ntempfile.TemporaryFile()")
    assert run.outcome is Outcome.runtime_error


def test_changing_the_interpreter(attack: Attack) -> None:
    """The standard library is read-only: no program can poison the next one's imports."""
    assert denied(attack("import os\nopen(os.__file__, 'r+').write('x')"))


@pytest.mark.parametrize(
    "call", ["os.unlink(p)", "os.rename(p, p + 'x')", "os.chmod(p, 0)", "os.mkdir('/d')", "os.link(p, '/l')"]
)
def test_changing_the_folder(attack: Attack, call: str) -> None:
    """Removal, renaming, modes, folders, links."""
    assert denied(attack(f"import os\np = os.__file__\n{call}"))


@x86_numbers
@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (319, ("b'x'", "0")),  # memfd_create
        (29, ("0", "4096", "0o1600")),  # shmget
        (250, ("0", "0", "0", "0", "0")),  # keyctl
        (248, ("b'user'", "b'x'", "b'y'", "1", "0")),  # add_key
        (321, ("0", "None", "0")),  # bpf
        (298, ("None", "0", "-1", "-1", "0")),  # perf_event_open
        (323, ("0",)),  # userfaultfd
        (425, ("8", "None")),  # io_uring_setup
        (165, ("None", "b'/'", "None", "0", "None")),  # mount
        (272, ("0x10000000",)),  # unshare
        (308, ("0", "0")),  # setns
        (161, ("b'/'",)),  # chroot
        (155, ("b'/'", "b'/'")),  # pivot_root
        (169, ("0xfee1dead", "672274793", "0", "None")),  # reboot
        (175, ("None", "0", "b''")),  # init_module
        (227, ("0", "None")),  # clock_settime
        (170, ("b'x'", "1")),  # sethostname
        (41, ("2", "1", "0")),  # socket(AF_INET)
        (41, ("16", "3", "0")),  # socket(AF_NETLINK)
        (53, ("2", "1", "0", "None")),  # socketpair(AF_INET)
        (105, ("0",)),  # setuid
        (157, ("4", "1", "0", "0", "0")),  # prctl(PR_SET_DUMPABLE)
        (437, ("-100", "b'/'", "None", "24")),  # openat2
        (16, ("0", "0x5412", "b'x'")),  # ioctl(TIOCSTI)
    ],
)
def test_kernel_interfaces(attack: Attack, number: int, arguments: tuple[str, ...]) -> None:
    """Each is EPERM by the allow-list. Not covered: faults of the kernel in what is allowed."""
    assert attack(system_call(number, *arguments)).output == "-1 1\n"


@x86_numbers
def test_x32(attack: Attack) -> None:
    """Numbers of the x32 interface would pass a filter that only compares numbers; they are killed."""
    assert attack(system_call(0x40000000 + 39)).outcome is Outcome.runtime_error


def test_second_filter_stays(attack: Attack) -> None:
    """A filter cannot be taken off, and a further one can only narrow."""
    run = attack("import ctypes\nprint(ctypes.CDLL(None).prctl(22, 1, 0, 0, 0))")
    assert run.output == "-1\n"


def test_localhost(attack: Attack) -> None:
    """Services of the host."""
    assert denied(attack("import socket\nsocket.create_connection(('127.0.0.1', 80))"))


def test_descriptors_over_a_socketpair(attack: Attack) -> None:
    """A pair of sockets is allowed (asyncio has one), passing descriptors over it is not."""
    source = "import socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0])"
    assert denied(attack(source))


def test_memory(attack: Attack) -> None:
    """Address space beyond the limit is a MemoryError."""
    assert attack("x = bytearray(400 << 20)").outcome is Outcome.memory_limit


def test_shared_memory_counts(attack: Attack) -> None:
    """Anonymous shared mappings count as well."""
    assert attack("import mmap\nm = [mmap.mmap(-1, 64 << 20) for _ in range(8)]").outcome is not Outcome.passed


def test_caught_memory_error_does_no_harm(attack: Attack) -> None:
    """A program may live at its limit; it takes nothing from the others. Not covered: the sum over all workers, which
    is workers × memory_mb and should fit the machine."""
    run = attack("try:\n    x = bytearray(400 << 20)\nexcept MemoryError:\n    print('caught')")
    assert run.output == "caught\n"


def test_threads_are_bounded(attack: Attack) -> None:
    """Threads end at the limit of processes or of memory, whichever comes first."""
    source = (
        "import threading, time\nthreading.stack_size(32768)\nn = 0\ntry:\n"
        "    while n < 100000:\n        threading.Thread(target=time.sleep, args=(100,), daemon=True).start(); n += 1\n"
        "except BaseException: pass\nprint(n < 20000)"
    )
    assert attack(source).output in ("True\n", "")


def test_stopping_itself(attack: Attack) -> None:
    """A stopped process is killed as any other."""
    run = attack("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", limits=Limits(wall_seconds=0.5))
    assert run.outcome is Outcome.timeout


@pytest.mark.slow
def test_blocked_signals(attack: Attack) -> None:
    """SIGXCPU ignored, everything blocked: the hard limit and the clock remain."""
    source = (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
    )
    assert attack(source, limits=Limits(wall_seconds=30, cpu_seconds=1)).outcome is Outcome.timeout


def test_output_without_end_on_stderr(attack: Attack) -> None:
    """The cap holds for both streams; memory on our side stays bounded by it."""
    assert attack("import os\nwhile True: os.write(2, b'x' * 65536)").outcome is Outcome.output_limit


def test_huge_input_that_nobody_reads(box: Sandbox) -> None:
    """Ten megabytes wait in vain; the judge does not."""
    assert box.judge([Program("print(1)", [Test("x" * 10_000_000, "1")])])[0].outcome is Outcome.passed


def test_nonblocking_output(attack: Attack) -> None:
    """Setting O_NONBLOCK on its own end of a pipe does not change ours."""
    run = attack("import os\nos.set_blocking(1, False)\nos.set_blocking(0, False)\nprint('x' * 1000)")
    assert run.output == "x" * 1000 + "\n"


def test_terminal_is_not_there(attack: Attack) -> None:
    """No controlling terminal to push characters into."""
    assert denied(attack("open('/dev/tty')"))


def test_compiler_bombs(box: Sandbox) -> None:
    """Sources that break the compiler end in the child, under its limits."""
    sources = [
        "(" * 5000,
        "-" * 200_000 + "1",
        "x = " + "[" * 100 + "]" * 100 + ";" * 10,
        "a." * 100_000 + "a",
        "f'" + "{" * 500,
    ]
    outcomes = {verdict.outcome for verdict in box.judge([Program(source, [Test("", "")]) for source in sources])}
    assert outcomes <= {Outcome.compile_error, Outcome.runtime_error, Outcome.timeout, Outcome.memory_limit}


def test_exception_that_hangs_in_str(attack: Attack) -> None:
    """Our traceback asks the exception for its text: the program's code, under the program's limits."""
    source = "class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E"
    assert attack(source, limits=Limits(wall_seconds=0.5)).outcome is Outcome.timeout


def test_exit_code_of_memory_is_only_a_failure(attack: Attack) -> None:
    """The exit code that tells of memory can be forged, for another kind of failure and nothing else."""
    assert attack("import os\nos._exit(201)").outcome is Outcome.memory_limit


def test_zygote_survives_broken_children(box: Sandbox) -> None:
    """After a hundred crashes the same zygotes judge on. Not covered: a crash of the kernel."""
    crash = Program("import ctypes\nctypes.string_at(0)", [Test("", "")] * 50)
    assert {test.outcome for test in box.judge([crash])[0].tests} == {Outcome.runtime_error}

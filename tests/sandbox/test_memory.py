"""Memory that a limit of addresses forgets, and whom the kernel ends when it runs out: the test, and nobody else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_modes import FULL, NO_GROUPS, Mode, in_each_mode, in_mode, interpreter, interpreters, run_in

pytestmark = pytest.mark.slow

MEMORY = Path("/sys/fs/cgroup/memory")
HOLDER = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
SIZE, held = 16 << 20, 0
def held_by(take):
    global held
    try:
        while held < 512:
            take()
            held += 16
    except BaseException as error:
        print(type(error).__name__, end=" ")
    print(held)
def shared(flags=0x21, protection=3, descriptor=-1, size=SIZE):
    place = libc.mmap(None, size, protection, flags, descriptor, 0)
    if place == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return place
def touched(place):
    for page in range(0, SIZE, 4096):
        ctypes.c_char.from_address(place + page).value = b"x"
    return place
keep = []
"""
# Each tries to hold 512 MiB under a limit of 64, and prints how much it holds.
FORGOTTEN = {
    "a resized map of Python's": """
def take():
    m = mmap.mmap(-1, SIZE); keep.append(m)
    for page in range(0, SIZE, 4096): m[page] = 1
    m.resize(4096)
    m.resize(SIZE)
    if not m[8192]: raise OSError("the pages are gone")
    m.resize(4096)
held_by(take)""",
    "a shared map that shrinks": "held_by(lambda: libc.mremap(touched(shared()), SIZE, 4096, 0))",
    "a shared map with checked flags": "held_by(lambda: libc.mremap(touched(shared(0x23)), SIZE, 4096, 0))",
    "/dev/zero, open for writing": """
descriptor = os.open("/dev/zero", os.O_RDWR)
held_by(lambda: libc.mremap(touched(shared(1, 3, descriptor)), SIZE, 4096, 0))""",
    "/dev/zero, only read": """
descriptor = os.open("/dev/zero", os.O_RDWR)
def take():
    place = shared(1, 1, descriptor)
    sum(ctypes.c_char.from_address(place + page).value[0] for page in range(0, SIZE, 4096))
    libc.mremap(place, SIZE, 4096, 0)
held_by(take)""",
    "pages that are dropped and stay": """
def take():
    place = touched(shared())
    libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), 4)
    libc.mremap(place, SIZE, 4096, 0)
held_by(take)""",
    "private maps that nobody reserves": "held_by(lambda: touched(shared(0x4022)))",
    "a map that grows down": "held_by(lambda: touched(shared(0x0122)))",
    "a copy that stays where it was": "held_by(lambda: libc.mremap(touched(shared(0x22)), SIZE, SIZE, 5))",
    "the break": """
libc.sbrk.restype = ctypes.c_void_p
def take():
    place = libc.sbrk(ctypes.c_long(SIZE))
    if place == ctypes.c_void_p(-1).value: raise MemoryError
    touched(place)
held_by(take)""",
}


@in_each_mode
def test_memory_that_no_limit_of_addresses_counts(mode: Mode) -> None:
    """Shared pages outlive their addresses; nothing may be held beyond the limit."""
    rows = run_in(mode, *(HOLDER + source for source in FORGOTTEN.values()), limits={"memory_mb": 64})
    for name, (outcome, output, stderr) in zip(FORGOTTEN, rows, strict=True):
        assert outcome in ("passed", "runtime_error", "memory_limit"), (name, stderr)
        held = int(output.split()[-1]) if output.strip() else 0
        assert held <= 96, f"{name}: {held} MiB under a limit of 64"


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).resolve().name)
def test_memory_under_other_interpreters(python: str) -> None:
    interpreter(NO_GROUPS)
    rows = run_in(NO_GROUPS, *map(HOLDER.__add__, FORGOTTEN.values()), python=python, limits={"memory_mb": 64})
    assert max(int((output.split() or ["0"])[-1]) for _, output, _ in rows) <= 96


TABLES = (
    HOLDER
    + """
for n in range(1, 40_000):
    if libc.mmap(n << 30, 4096, 3, 0x100022, -1, 0) == n << 30:
        ctypes.c_char.from_address(n << 30).value = b"x"
print("done")
"""
)


@in_each_mode
def test_page_tables_are_counted(mode: Mode) -> None:
    """A page in each GiB takes two tables of its own: three times the memory that the addresses show."""
    (row,) = run_in(mode, TABLES, limits={"memory_mb": 160, "wall_seconds": 60, "cpu_seconds": 60})
    assert row[:2] == ["memory_limit", ""]


SCORES = """
import threading, time
from pathlib import Path
def below(pid):
    table = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try: table[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError: pass
    found, more = set(), {pid}
    while more := {child for child, parent in table.items() if parent in more}: found |= more
    return found
with Sandbox(workers=1) as box:
    judge = threading.Thread(target=box.run, args=([Program("import time\\ntime.sleep(1.2)", [Test("")])],))
    judge.start()
    time.sleep(0.7)
    scores = sorted(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in below(os.getpid()))
    judge.join()
print(json.dumps([int(Path("/proc/self/oom_score_adj").read_text()), scores]))
"""


@in_each_mode
def test_tests_are_the_first_that_the_kernel_ends(mode: Mode) -> None:
    """The running test and the one that waits; then the zygotes, which can be replaced."""
    own, scores = in_mode(mode, SCORES)
    assert scores[-2:] == [1000, 1000]
    assert set(scores[:-2]) == {max(own, 500)}


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group with a limit in MiB (`indirect`), as a container has one; its processes are ours to end."""
    folder = MEMORY / f"refinerl-test-{os.getpid()}"
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
        folder = MEMORY / own.split(":")[2].lstrip("/") / folder.name
        folder.mkdir()
    except (OSError, StopIteration):
        pytest.skip("no control group of memory, version 1, can be made here")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(request.param << 20))
        yield folder
    finally:
        for _ in range(200):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.02)  # its last process is ending


# Ended the trainer, or its zygotes, until a test could not share memory.
ENDS = [
    HOLDER
    + """
while True:
    place = touched(shared())
    libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), 4)
    libc.mremap(place, SIZE, 4096, 0)
""",
    HOLDER + "while True: libc.mremap(touched(shared()), SIZE, 4096, 0)",
]
GREEDY = [
    "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "x = b'x' * (500 << 20)\ninput()\nwhile True: pass",
    TABLES.replace("40_000", "65_000"),
    HOLDER + "while True: keep.append(touched(shared(0x22)))",
]
STEADY = """
programs, = ARGUMENTS
with Sandbox(workers=2, limits=Limits(wall_seconds=30, cpu_seconds=30, memory_mb=512)) as box:
    outcomes = [verdict.outcome.value for verdict in box.judge([Program(p, [Test("", "")] * 2) for p in programs])]
    good = box.judge([Program("print(1)", [Test("", "1")] * 8)])[0].outcome.value
print(json.dumps([outcomes, good]))
"""


@pytest.mark.parametrize("container", [1200], indirect=True)
@pytest.mark.parametrize("mode", [FULL, NO_GROUPS], ids=lambda mode: mode.name)
def test_no_program_ends_the_trainer_in_a_small_container(mode: Mode, container: Path) -> None:
    """Two at a time in 1.2 GB: each ends by itself, as what it is."""

    def enter() -> None:
        (container / "cgroup.procs").write_text(str(os.getpid()))

    outcomes, good = in_mode(mode, STEADY, ENDS + GREEDY, prepare=enter)
    assert good == "passed"
    assert set(outcomes[: len(ENDS)]) <= {"runtime_error", "memory_limit"}
    assert set(outcomes[len(ENDS) :]) <= {"memory_limit", "runtime_error"}
    assert "memory_limit" in outcomes


CROWDED = """
try:
    Sandbox(workers=8)
except SandboxError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.parametrize("container", [60], indirect=True)
@pytest.mark.parametrize("mode", [FULL, NO_GROUPS], ids=lambda mode: mode.name)
def test_more_workers_than_memory_names_the_need(mode: Mode, container: Path) -> None:
    def enter() -> None:
        (container / "cgroup.procs").write_text(str(os.getpid()))

    said = ""
    for _ in range(4):
        # Before its first line an interpreter is no likelier victim than its parent: then nobody is left to say it.
        with suppress(json.JSONDecodeError):
            said = said or in_mode(mode, CROWDED, prepare=enter)
    assert "memory ran out: 8 workers need about 256 MiB" in said


NEIGHBOURS = """
source = "x = b'x' * (400 << 20)\\nimport time\\ntime.sleep(0.5)\\nprint(len(x))"
with Sandbox(workers=2, limits=Limits(wall_seconds=30, cpu_seconds=30, memory_mb=512)) as box:
    verdicts = box.judge([Program(source, [Test("", str(400 << 20))] * 4)])
print(json.dumps([test.outcome.value for test in verdicts[0].tests]))
"""


@pytest.mark.parametrize("container", [640], indirect=True)
@pytest.mark.parametrize("mode", [FULL, NO_GROUPS], ids=lambda mode: mode.name)
def test_honest_program_whose_neighbour_takes_the_rest_is_judged_again_alone(mode: Mode, container: Path) -> None:
    """Each of two fits, both do not: the kernel ends one, and it is not that one's fault."""

    def enter() -> None:
        (container / "cgroup.procs").write_text(str(os.getpid()))

    assert in_mode(mode, NEIGHBOURS, prepare=enter) == ["passed"] * 4

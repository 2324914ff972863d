"""What a leak would add to, and a soak of the sandbox that looks for one. Runs without packages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test

# The first, the ninth and the tenth and the last pass.
KINDS = [
    "print({n})",
    "1/{n}\n1/0",
    "x = (  # {n}",
    "import os\nos._exit({n} % 3)",
    "def f(): f()\nf()  # {n}",
    "import os\nprint('x' * {n})\nos.abort()",
    "x = bytearray(10**10 + {n})",
    "print('y' * 2_000_000, {n})",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nprint({n})",
    "import os\ntry: os.fork()\nexcept OSError: print({n})",
    "import os\nos.kill(os.getpid(), 9)  # {n}",
    "f = open(1, 'w')\nf.write('{n}')",
]
PASSING = (0, 8, 9, 11)


def processes() -> dict[int, tuple[int, str]]:
    """pid -> (parent, state) of every process on the machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(folder.name)] = (int(fields[1]), fields[0])
    return found


def descendants(root: int) -> dict[int, str]:
    """pid -> state of everything below `root`."""
    table, below = processes(), {root: ""}
    while more := {pid: state for pid, (parent, state) in table.items() if parent in below and pid not in below}:
        below |= more
    del below[root]
    return below


def shared_memory(pids: Iterable[int]) -> set[Path]:
    """Files in shared memory that processes have mapped and that still have a name."""
    found = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        found |= {Path(line.split(maxsplit=5)[5]) for line in lines if "/dev/shm/" in line}
    return {path for path in found if not path.name.endswith("(deleted)")}


def resources() -> dict[str, int]:
    """What a leak would add to: descriptors and threads of this process, and processes below it."""
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "processes": len(descendants(os.getpid())),
    }


def leaked(before: dict[str, int]) -> dict[str, int]:
    """How many more there are now; what other tests left in this process may end meanwhile, and is no leak."""
    return {kind: count - before[kind] for kind, count in resources().items() if count > before[kind]}


def resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def soak(count: int) -> tuple[dict[str, int], int]:
    """So many programs; what leaked, and by how many kilobytes memory grew after the first round."""
    with Sandbox(workers=2, limits=Limits(wall_seconds=20, memory_mb=256)) as box:
        measured: list[int] = []
        warm: dict[str, int] = {}
        size = min(count // 4, 500)
        for start in range(0, count, size):
            numbers = range(start, start + size)
            programs = [Program(KINDS[n % len(KINDS)].format(n=n), [Test("", str(n))]) for n in numbers]
            outcomes = Counter(verdict.outcome for verdict in box.judge(programs))
            assert outcomes[Outcome.passed] == sum(n % len(KINDS) in PASSING for n in numbers), outcomes
            assert outcomes[Outcome.sandbox_error] == 0, outcomes
            measured.append(sum(resident_kb(pid) for pid in [os.getpid(), *descendants(os.getpid())]))
            warm = warm or resources()
            if leaks := leaked(warm):
                return leaks, measured[-1] - measured[0]
    return {}, measured[-1] - measured[1]

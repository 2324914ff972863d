"""Each threat in each mode: the table of docs/sandbox.md. All attacks of a mode run in one sandbox, which works on.

An attack prints what it achieved: `held` is nothing. What a mode exposes is tested too, and that its report says so.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from sandbox_modes import (
    BARE_USER,
    FULL,
    MODES,
    NO_NAMESPACES,
    USER_NO_NAMESPACES,
    Mode,
    in_mode,
    interpreter,
    interpreters,
)

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86-64")
WITHOUT_NAMESPACES = (NO_NAMESPACES, USER_NO_NAMESPACES, BARE_USER)
TOOLS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def denied(step):
    try:
        result = step()
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError):
        return True
    return isinstance(result, int) and result == -1
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *(a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments))
def report(*steps):
    reached = [str(n) for n, step in enumerate(steps) if not denied(step)]
    print("reached " + " ".join(reached) if reached else "held")
library = os.open(os.__file__, os.O_RDONLY)
"""
# Sources by threat and name: `=== threat | name` before each.
SECTIONS = (Path(__file__).parent / "hostile_programs.txt").read_text("utf-8").split("=== ")[1:]
ATTACKS = {tuple(head.split(" | ")): source for head, source in (section.split("\n", 1) for section in SECTIONS)}
THREATS = list(dict.fromkeys(threat for threat, _ in ATTACKS))
EXPOSED = {
    ("files are read", BARE_USER): ("mount_namespace", "files can be read with the user's rights"),
    ("the host is named", NO_NAMESPACES): ("uts_namespace", "the host's name"),
    ("the host is named", USER_NO_NAMESPACES): ("uts_namespace", "the host's name"),
    ("the host is named", BARE_USER): ("uts_namespace", "the host's name"),
    ("processes are numbered", NO_NAMESPACES): ("pid_namespace", "process numbers"),
    ("processes are numbered", USER_NO_NAMESPACES): ("pid_namespace", "process numbers"),
    ("processes are numbered", BARE_USER): ("pid_namespace", "process numbers"),
}
RUN = """
sources, = ARGUMENTS
with Sandbox(workers=1, limits=Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256)) as box:
    runs = box.run([Program(source, [Test("input")]) for source in sources])
    fine = box.judge([Program("print(input())", [Test(str(n), str(n)) for n in range(4)])])[0].outcome.value
    report = {row.name: row.exposed for row in box.isolation}
ends = [run.tests[0] for run in runs]
print(json.dumps([[[end.outcome.value, end.output, end.stderr[-300:]] for end in ends], fine, report]))
"""


@cache
def results(mode: Mode, python: str | None = None) -> tuple[dict[tuple[str, ...], list[str]], str, dict[str, str]]:
    """(threat, name) -> (outcome, output, log); whether the sandbox judges right then; what it says is exposed."""
    sources = [
        f"CHECKOUT, NODE = {__file__!r}, {os.uname().nodename!r}\n{TOOLS}\n{source}" for source in ATTACKS.values()
    ]
    rows, fine, report = in_mode(mode, RUN, sources, python=python)
    return dict(zip(ATTACKS, rows, strict=True)), fine, report


def test_there_are_as_many_as_promised() -> None:
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("threat", THREATS)
def test_threat(threat: str, mode: Mode) -> None:
    rows, fine, report = results(mode)
    ends = {name: row for (of, name), row in rows.items() if of == threat}
    if (threat, mode) in EXPOSED:
        row, said = EXPOSED[threat, mode]
        assert said in report[row]
        assert any(output.startswith("reached") for _, output, _ in ends.values())
    else:
        assert {name: row for name, row in ends.items() if not held(*row)} == {}
    assert fine == "passed"


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).resolve().name)
@pytest.mark.slow
def test_threats_under_other_interpreters(python: str) -> None:
    """The harness is Python, and the interpreters differ."""
    interpreter(FULL)
    rows, fine, _ = results(FULL, python)
    assert {name: row for name, row in rows.items() if not held(*row)} == {}
    assert fine == "passed"


def test_the_table_of_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs/sandbox.md").read_text("utf-8")
    section = text.partition("## Threat by mode\n")[2].partition("\n## ")[0]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line)
    assert head == ["threat", *(mode.name for mode in MODES)]
    cells = {threat: ["**exposed**" if (threat, mode) in EXPOSED else "held" for mode in MODES] for threat in THREATS}
    assert {threat: row for threat, *row in rows} == cells


def held(outcome: str, output: str, log: str) -> bool:
    """Nothing was reached; too many threads or too much memory end a program."""
    ended = outcome == "memory_limit" or log == "more than 128 threads at once"
    return (outcome, output) == ("passed", "held\n") or ended

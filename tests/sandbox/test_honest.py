"""Honest programs end and print as under bare Python, in each mode and under each interpreter at hand."""

from __future__ import annotations

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from sandbox_modes import FULL, Mode, in_each_mode, in_mode, interpreter, interpreters

PROGRAMS = Path(__file__).parent / "honest_programs.txt"
# Ends of a program: how, what it printed, the last line of its log.
End = tuple[str, str, str]


@cache
def programs() -> dict[str, tuple[str, str]]:
    """Read each program by name as (source, standard input); the file has `=== name | input` before each source."""
    found = {}
    for section in PROGRAMS.read_text("utf-8").split("=== ")[1:]:
        head, source = section.split("\n", 1)
        name, given = head.split(" |", 1)
        assert name not in found
        found[name] = (source, given[1:].replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t"))
    return found


@cache
def bare(python: str) -> dict[str, End]:
    """Run each program under the interpreter itself."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        ends = pool.map(lambda item: run_bare(python, folder, *item), programs().items())
        return dict(zip(programs(), ends, strict=True))


def run_bare(python: str, folder: str, name: str, program: tuple[str, str]) -> End:
    """Run a program as `python solution.py`."""
    place = Path(folder, str(list(programs()).index(name)))
    place.mkdir()
    (place / "solution.py").write_text(program[0], "utf-8")
    done = subprocess.run(
        [python, "-s", "solution.py"],
        input=program[1].encode(),
        cwd=place,
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return end("passed" if done.returncode == 0 else "runtime_error", done.stdout.decode(), done.stderr.decode())


def end(outcome: str, output: str, log: str) -> End:
    """Keep what is compared: of a traceback, which names frames and files, only the last line."""
    last = log.strip().rpartition("\n")[2]
    return outcome, output, "" if outcome == "passed" or last.startswith("exit code ") else last


JUDGE = """
(programs,) = ARGUMENTS
with Sandbox(workers=2, limits=Limits(wall_seconds=30, cpu_seconds=20)) as box:
    runs = box.run([Program(source, [Test(given)]) for source, given in programs])
print(json.dumps([[run.tests[0].outcome.value, run.tests[0].output, run.tests[0].stderr] for run in runs]))
"""


def differences(mode: Mode, python: str) -> list[tuple[str, End, End]]:
    """(name, bare, in the sandbox) of each program that does not end alike."""
    rows = in_mode(mode, JUDGE, list(programs().values()), python=python)
    pairs = zip(programs(), bare(python).values(), (end(*row) for row in rows), strict=True)
    return [(name, expected, got) for name, expected, got in pairs if expected != got]


def test_there_are_as_many_as_promised() -> None:
    assert len(programs()) >= 200


@pytest.mark.slow
@in_each_mode
def test_honest_programs_end_as_under_bare_python(mode: Mode) -> None:
    assert differences(mode, interpreter(mode)) == []


@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).resolve().name)
def test_honest_programs_end_alike_under_other_interpreters(python: str) -> None:
    if os.path.realpath(python) == os.path.realpath(interpreter(FULL)):
        pytest.skip("this interpreter has had its turn")
    assert differences(FULL, python) == []

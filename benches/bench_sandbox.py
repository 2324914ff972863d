"""Tests per second of the sandbox with full isolation, against its rivals, in one run on one machine.

    pytest benches/bench_sandbox.py -o python_files='bench_*.py' -q -s

The rivals are an interpreter per test (`python -I -S`); a process per program that feeds all tests through patched
streams, as LiveCodeBench's checker does (a Manager, a Process, the imports it prepends); evalplus's `untrusted_check`
if evalplus is installed; the same sandbox if the system refuses namespaces and Landlock; and as the upper limit a bare
fork of a warm interpreter. All have one worker per core.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from unittest.mock import patch

import pytest

from outside import DATA
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test
from sandbox_modes import LANDLOCK, MOUNT, refuse

WORKERS = len(os.sched_getaffinity(0))
TRIVIAL = [(f"print(int(input()) + {n})", [(f"{n}\n", f"{2 * n}\n")]) for n in range(400)]
RATES: dict[tuple[str, str], float] = {}
Problems = list[tuple[str, list[tuple[str, str]]]]


def real() -> Problems:
    """Read APPS's problems with standard input, each with a solution that passes."""
    if not DATA.is_dir():
        pytest.skip("no outside data: REFINERL_OUTSIDE names their folder")
    rows = [json.loads(line) for line in (DATA / "apps" / "apps_stdin.jsonl").read_text().splitlines()]
    return [
        (row["solutions"][0], list(zip(row["input_output"]["inputs"], row["input_output"]["outputs"], strict=True)))
        for row in rows
    ]


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the ratios at the end."""
    yield
    for problems in ("trivial", "real", "functions"):
        ours = RATES.get(("sandbox", problems))
        for (name, of), rate in RATES.items():
            if of == problems and ours:
                print(f"{problems:10} {name:28} {rate:8.0f} tests/s   sandbox is {ours / rate:5.2f} x")
    print(f"{'':10} {'fork floor':28} {fork_floor():8.0f} forks/s on one core")


def measure(name: str, problems: str, count: int, run: Callable[[], object], rounds: int = 3) -> None:
    """Take the best of some rounds, since noise only slows down."""
    best = min(timed(run) for _ in range(rounds))
    RATES[name, problems] = count / best


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@pytest.mark.parametrize("kind", ["trivial", "real"])
def test_sandbox(kind: str) -> None:
    problems = TRIVIAL if kind == "trivial" else real()
    programs = [Program(source, [Test(*test) for test in tests]) for source, tests in problems]
    with Sandbox(WORKERS, limits=Limits(wall_seconds=30)) as box:
        assert {verdict.outcome for verdict in box.judge(programs)} == {Outcome.passed}
        measure("sandbox", kind, sum(len(tests) for _, tests in problems), lambda: box.judge(programs))


@pytest.mark.parametrize("kind", ["trivial", "real"])
def test_sandbox_without_namespaces_and_landlock(kind: str) -> None:
    """Run the same code in a process that may neither mount nor use Landlock; the filters stay."""
    done = subprocess.run(
        [sys.executable, __file__, kind],
        preexec_fn=lambda: refuse(MOUNT, LANDLOCK),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # pytest's own, with the tests' folder
        capture_output=True,
        text=True,
        check=True,
    )
    RATES["no namespaces, no Landlock", kind] = float(done.stdout)


@pytest.mark.parametrize("kind", ["trivial", "real"])
def test_interpreter_per_test(kind: str) -> None:
    problems = TRIVIAL[:100] if kind == "trivial" else real()

    def one(job: tuple[str, str, str]) -> bool:
        source, given, expected = job
        command = [sys.executable, "-I", "-S", "-c", source]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout.strip() == expected.strip()

    jobs = [(source, given, expected) for source, tests in problems for given, expected in tests]
    with ThreadPoolExecutor(WORKERS) as pool:
        measure("python -I -S per test", kind, len(jobs), lambda: list(pool.map(one, jobs)), rounds=1)


@pytest.mark.parametrize("kind", ["trivial", "real"])
def test_process_per_program(kind: str) -> None:
    problems = TRIVIAL[:100] if kind == "trivial" else real()

    def one(problem: tuple[str, list[tuple[str, str]]]) -> list[bool]:
        with multiprocessing.Manager() as manager:
            results = manager.list()
            process = multiprocessing.Process(target=check_in_process, args=(*problem, results))
            process.start()
            process.join(timeout=60)
            return list(results)

    count = sum(len(tests) for _, tests in problems)
    with ThreadPoolExecutor(WORKERS) as pool:
        measure("process per program", kind, count, lambda: list(pool.map(one, problems)), rounds=1)


PRELUDE_MODULES = """
    string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json
    builtins typing
"""
PRELUDE = "".join(f"from {name} import *\n" for name in PRELUDE_MODULES.split())


def check_in_process(source: str, tests: list[tuple[str, str]], results: list[bool]) -> None:
    """Run all tests of a program in this process, through replaced streams."""
    code = compile(PRELUDE + source, "solution.py", "exec")
    for given, expected in tests:
        out, stream = io.StringIO(), io.StringIO(given)
        with patch("sys.stdin", stream), patch("builtins.input", partial(read_line, stream)), redirect_stdout(out):
            try:
                exec(code, {"__name__": "__main__"})
            except BaseException:
                results.append(False)
                continue
        results.append(out.getvalue().split() == expected.split())


def read_line(stream: io.StringIO, *_: object) -> str:
    return stream.readline().rstrip("\n")


FUNCTIONS = [(f"def f(a, b):\n    return sorted(a)[:b] + [{n}]", [[[3, 1, 2], i] for i in range(8)]) for n in range(40)]


def test_functions_in_the_sandbox() -> None:
    """Run all tests of a program in one process, as evalplus does."""
    programs = []
    for n, (source, inputs) in enumerate(FUNCTIONS):
        tests = [Test(list(given), [*sorted(given[0])[: given[1]], n]) for given in inputs]  # type: ignore[call-overload]
        programs.append(Program(source, tests, fn_name="f", isolate="program"))
    with Sandbox(WORKERS, limits=Limits(wall_seconds=30)) as box:
        assert {verdict.outcome for verdict in box.judge(programs)} == {Outcome.passed}
        measure("sandbox", "functions", 8 * len(programs), lambda: box.judge(programs))


def test_functions_in_evalplus() -> None:
    untrusted_check = pytest.importorskip("evalplus.eval", reason="pip install evalplus").untrusted_check

    def one(problem: tuple[int, tuple[str, list[list[object]]]]) -> object:
        n, (source, inputs) = problem
        expected = [[*sorted(given[0])[: given[1]], n] for given in inputs]  # type: ignore[call-overload, misc]
        return untrusted_check("humaneval", source, inputs, "f", expected, 0, [0.01] * 8)

    problems = list(enumerate(FUNCTIONS))
    with ThreadPoolExecutor(WORKERS) as pool:
        assert all(result[0] == "pass" for result in pool.map(one, problems))  # type: ignore[index]
        measure(
            "evalplus untrusted_check", "functions", 8 * len(problems), lambda: list(pool.map(one, problems)), rounds=1
        )


def fork_floor() -> float:
    """Measure fork, exit and wait of a warm interpreter, on one core."""
    source = (
        "import array, collections, ctypes, datetime, decimal, fractions, json, random, re, statistics, typing\n"
        "import gc, os, time\ngc.freeze()\nstart = time.perf_counter()\nfor _ in range(500):\n"
        "    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n"
        "print(500 / (time.perf_counter() - start))"
    )
    return float(
        subprocess.run([sys.executable, "-S", "-c", source], capture_output=True, text=True, check=True).stdout
    )


if __name__ == "__main__":
    test_sandbox(sys.argv[1])
    print(RATES["sandbox", sys.argv[1]])

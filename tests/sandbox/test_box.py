"""The Python interface: outcomes, comparisons, and arguments that are refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, Test


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_seconds=20, cpu_seconds=10)) as box:
        yield box


def outcome(box: Sandbox, source: str, stdin: str = "", expected: str = "", **options: Any) -> Outcome:
    return box.judge([Program(source, [Test(stdin, expected)], **options)])[0].outcome


def call(box: Sandbox, source: str, arguments: list[Any], expected: Any, **options: Any) -> Outcome:
    return box.judge([Program(source, [Test(arguments, expected)], fn_name="f", **options)])[0].outcome


def test_standard_input(box: Sandbox) -> None:
    source = "a, b = map(int, input().split())\nprint(a + b)"
    verdict = box.judge([Program(source, [Test("1 2\n", "3\n"), Test("2 2", "5"), Test("1", "1")])])[0]
    assert [test.outcome for test in verdict.tests] == [Outcome.passed, Outcome.wrong_answer, Outcome.runtime_error]
    assert verdict.outcome is Outcome.runtime_error
    assert verdict.pass_rate == pytest.approx(1 / 3)
    assert (verdict.tests[1].expected, verdict.tests[1].got) == ("line 1: 5", "line 1: 4")
    assert verdict.tests[2].stderr.endswith("ValueError: not enough values to unpack (expected 2, got 1)\n")
    assert "line 1, in <module>\n    a, b = map(int, input().split())" in verdict.tests[2].stderr
    assert all(0 < test.cpu_seconds < test.wall_seconds + 1 for test in verdict.tests)


def test_lists_of_lines_and_bytes(box: Sandbox) -> None:
    program = Program(
        "import sys\nfor l in sys.stdin: print(l.strip())", [Test(["a", "b"], ["a", "b"]), Test(b"c", b"c")]
    )
    assert box.judge([program])[0].outcome is Outcome.passed


@pytest.mark.parametrize("isolate", ["test", "program"])
def test_function_and_method(box: Sandbox, isolate: Any) -> None:
    tests = [Test([n], n * n) for n in (2, -3, 10**30)]
    module = Program("def f(n): return n * n", tests, fn_name="f", isolate=isolate)
    method = Program("class Solution:\n    def f(self, n): return n * n", tests, fn_name="f", isolate=isolate)
    assert [verdict.outcome for verdict in box.judge([module, method])] == [Outcome.passed] * 2


def test_preamble(box: Sandbox) -> None:
    source = (
        "class Solution:\n    def f(self, n: List[int]) -> int: return pow(3, gcd(*n), 7) + len(deque(n)) if inf else 0"
    )
    assert call(box, source, [[4, 6]], 4) is Outcome.passed
    assert call(box, source, [[4, 6]], 4, preamble=False) is Outcome.runtime_error
    assert call(box, "from __future__ import annotations\ndef f(x: Unknown): return x", [1], 1) is Outcome.passed


def test_one_child_for_a_program_survives_failures(box: Sandbox) -> None:
    source = (
        "import os\ndef f(n):\n    if n == 1: raise KeyError(n)\n    if n == 2: os._exit(0)\n"
        "    while n == 3: pass\n    return n"
    )
    program = Program(
        source, [Test([n], n) for n in range(6)], fn_name="f", isolate="program", limits=Limits(wall_seconds=1)
    )
    tests = box.judge([program])[0].tests
    passed, error = Outcome.passed, Outcome.runtime_error
    assert [test.outcome for test in tests] == [passed, error, error, Outcome.timeout, passed, passed]
    assert "KeyError: 1" in tests[1].stderr


def test_import_that_fails_fails_all_tests_at_once(box: Sandbox) -> None:
    program = Program("1/0\ndef f(n): return n", [Test([n], n) for n in range(9)], fn_name="f", isolate="program")
    tests = box.judge([program])[0].tests
    assert {test.outcome for test in tests} == {Outcome.runtime_error}
    assert all("ZeroDivisionError" in test.stderr for test in tests)


@pytest.mark.slow
def test_limit_of_the_processor_holds_for_each_test_of_a_shared_child(box: Sandbox) -> None:
    program = Program(
        "def f(n):\n    while n: pass\n    return n",
        [Test([n], n) for n in (0, 1, 0)],
        fn_name="f",
        isolate="program",
        limits=Limits(wall_seconds=2, cpu_seconds=1),
    )
    assert [test.outcome.value for test in box.judge([program])[0].tests] == ["passed", "timeout", "passed"]


def test_limit_of_output_holds_for_each_result_of_a_shared_child(box: Sandbox) -> None:
    source = "def f(n):\n    print('x' * 40_000)\n    return 'x' * n"
    program = Program(
        source,
        [Test([n], "x" * n) for n in (50_000, 100_000, 50_000)],
        fn_name="f",
        isolate="program",
        limits=Limits(output_kb=64),
    )
    assert [test.outcome.value for test in box.judge([program])[0].tests] == ["passed", "output_limit", "passed"]


def test_stop_early(box: Sandbox) -> None:
    tests = [Test("", "1"), Test("", "2"), Test("", "1")]
    verdict = box.judge([Program("print(1)", tests, stop_early=True)])[0]
    assert [test.outcome.value for test in verdict.tests] == ["passed", "wrong_answer", "not_run"]
    assert (verdict.outcome, verdict.pass_rate) == (Outcome.wrong_answer, pytest.approx(1 / 3))


@pytest.mark.slow
def test_order_of_outcomes(box: Sandbox) -> None:
    source = "n = int(input())\nif n == 1: 1/0\nwhile n == 2: pass\nprint(n)"
    short = Limits(wall_seconds=1, cpu_seconds=1)

    def worst(*inputs: int) -> str:
        return box.judge([Program(source, [Test(str(n), "0") for n in inputs], limits=short)])[0].outcome.value

    assert [worst(0), worst(0, 3), worst(3, 1, 2), worst(3, 2, 1)] == [
        "passed",
        "wrong_answer",
        "runtime_error",
        "timeout",
    ]


def test_exit_codes(box: Sandbox) -> None:
    assert outcome(box, "print(1)\nexit()", expected="1") is Outcome.passed
    assert outcome(box, "print(1)\nimport sys\nsys.exit(None)", expected="1") is Outcome.passed
    assert outcome(box, "print(1)\nimport sys\nsys.exit(3)", expected="1") is Outcome.runtime_error
    assert outcome(box, "print(1)\nraise SystemExit('no')", expected="1") is Outcome.runtime_error


def test_what_the_interpreter_does_at_its_end(box: Sandbox) -> None:
    """Threads are waited for, exit functions run, streams are flushed."""
    source = (
        "import atexit, threading, sys\natexit.register(print, 'exit')\n"
        "threading.Thread(target=lambda: print('thread')).start()\nsys.stdout.write('main ')"
    )
    output = box.run([Program(source, [Test("")])])[0].tests[0].output
    assert sorted(output.split()) == ["exit", "main", "thread"]
    assert output.endswith("exit\n")


def test_program_sees_itself_as_a_script(box: Sandbox) -> None:
    source = "import sys, __main__\nprint(__name__, __file__, sys.argv, __main__.__dict__ is globals())"
    run = box.run([Program(source, [Test("")])])[0].tests[0]
    assert run.output == "__main__ solution.py ['solution.py'] True\n"


def test_run_returns_values_and_outputs(box: Sandbox) -> None:
    values = [
        None,
        True,
        10**6000,
        -(2**63),
        1.5,
        2j,
        "é\ud800",
        b"\xff",
        [1, (2,)],
        {1, 2},
        frozenset({3}),
        {"a": {1: ()}},
    ]
    runs = box.run([Program("def f(x):\n    print('noise')\n    return x", [Test([v]) for v in values], fn_name="f")])
    assert [test.value for test in runs[0].tests] == values
    assert {test.output for test in runs[0].tests} == {"noise\n"}


def test_big_integers_huge_and_odd_output(box: Sandbox) -> None:
    assert outcome(box, "print(7 ** 20000)", expected=_digits(7**20000)) is Outcome.passed
    assert call(box, "def f(n): return n ** 20000", [7], 7**20000) is Outcome.passed
    assert outcome(box, "print('1\\r\\n2\\r')", expected="1\n2\n") is Outcome.passed
    assert outcome(box, "import os\nos.write(1, b'\\xff1')", expected="1") is Outcome.wrong_answer
    assert outcome(box, "print('x' * 1_000_000)", expected="x" * 1_000_000) is Outcome.passed
    assert outcome(box, "print('x' * 1_100_000)", expected="x") is Outcome.output_limit
    assert call(box, "def f(n): return [0] * n", [300_000], 0) is Outcome.output_limit


def test_results_of_other_types(box: Sandbox) -> None:
    assert call(box, "def f(n): return Counter([n])", [1], {1: 1}) is Outcome.passed
    assert call(box, "def f(n): return namedtuple('P', 'x y')(n, 2)", [1], [1, 2]) is Outcome.passed
    assert call(box, "import enum\ndef f(n): return enum.IntEnum('E', 'A').A", [1], 1) is Outcome.passed
    assert call(box, "def f(n): return range(n)", [1], [0]) is Outcome.runtime_error
    assert (
        call(box, "def f(n):\n    x = []\n    for _ in range(500): x = [x]\n    return x", [1], [])
        is Outcome.runtime_error
    )


def test_wrapped_answers(box: Sandbox) -> None:
    """If all tests expect lists of one item, the bare item counts; one other test shows that they are lists."""
    source = "def f(n): return n"
    wrapped = Program(source, [Test([1], [1]), Test([2], [2])], fn_name="f")
    mixed = Program(source, [Test([1], [1]), Test([[2, 3]], [2, 3])], fn_name="f")
    assert [verdict.outcome.value for verdict in box.judge([wrapped, mixed])] == ["passed", "wrong_answer"]


def test_tolerance(box: Sandbox) -> None:
    assert outcome(box, "print(0.1 + 0.2)", expected="0.3") is Outcome.passed
    assert outcome(box, "print(0.1 + 0.2)", expected="0.3", atol=0) is Outcome.wrong_answer
    assert outcome(box, "print(1.05)", expected="1.0", atol=0.1) is Outcome.passed
    assert call(box, "def f(n): return 0.1 + 0.2", [1], 0.3) is Outcome.passed
    assert call(box, "def f(n): return 0.1 + 0.2", [1], 0.3, atol=0) is Outcome.wrong_answer
    assert outcome(box, "print(1.0000001)", expected="1", compare="apps") is Outcome.passed
    assert outcome(box, "print(1.0000001)", expected="1") is Outcome.wrong_answer


def test_same_program_runs_once(box: Sandbox) -> None:
    """Programs that print the clock print the same only if they ran once."""
    clock = Program("import time\nprint(time.perf_counter_ns())", [Test("")])
    first, second = box.run([clock, Program(clock.source, [Test("")])])
    assert first == second
    other = box.run([clock, Program(clock.source + "\n", [Test("")])])
    assert other[0].tests[0].output != other[1].tests[0].output


def test_sets_print_alike(box: Sandbox) -> None:
    program = Program("print({'b', 'a', 'c', str(1)}, hash('x'))", [Test("")])
    with Sandbox(workers=1) as other:
        assert box.run([program])[0].tests[0].output == other.run([program])[0].tests[0].output


@pytest.mark.parametrize("source", ["print(1)\0", "print('\ud800')", "if 1:\nprint(1)", "x = ("])
def test_sources_that_do_not_compile(box: Sandbox, source: str) -> None:
    verdict = box.judge([Program(source, [Test("", "1")] * 3)])[0]
    assert {test.outcome for test in verdict.tests} == {Outcome.compile_error}
    assert "Error" in verdict.tests[0].stderr


def test_ten_megabytes_of_source(box: Sandbox) -> None:
    long = Limits(wall_seconds=60, cpu_seconds=60)
    assert outcome(box, "#" * 10_000_000 + "\nprint(1)", expected="1", limits=long) is Outcome.passed
    assert outcome(box, "x = 1\n" * 1_700_000, limits=long) in (Outcome.memory_limit, Outcome.passed)


def test_memory_limit_below_the_source(box: Sandbox) -> None:
    small = Limits(wall_seconds=20, memory_mb=1)
    assert outcome(box, "#" * 10_000_000, limits=small) in (Outcome.memory_limit, Outcome.compile_error)


def test_missing_function(box: Sandbox) -> None:
    verdict = box.judge([Program("def g(n): return n", [Test([1], 1)], fn_name="f")])[0]
    assert verdict.outcome is Outcome.runtime_error
    assert "name 'f' is not defined" in verdict.tests[0].stderr


def test_one_bad_program_does_not_harm_the_batch(box: Sandbox) -> None:
    bad = [
        Program(source, [Test("", "")]) for source in ("import os\nos.abort()", "\0", "while True: print('x' * 9999)")
    ]
    good = [Program(f"print({n})", [Test("", str(n))]) for n in range(20)]
    verdicts = box.judge([*bad, *good, *bad])
    assert {verdict.outcome for verdict in verdicts[3:-3]} == {Outcome.passed}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Limits(wall_seconds=0), "wall_seconds must be a number above 0 and at most 86400, got 0"),
        (lambda: Limits(cpu_seconds=-1), "cpu_seconds must be"),
        (lambda: Limits(cpu_seconds=float("nan")), "cpu_seconds must be"),
        (lambda: Limits(memory_mb=0), "memory_mb must be an integer above 0"),
        (lambda: Limits(memory_mb=1.5), "memory_mb must be an integer"),
        (lambda: Limits(output_kb=-5), "output_kb must be"),
        (lambda: Limits(wall_seconds="4"), "wall_seconds must be"),
        (lambda: Test(5, "x"), "input must be text or a list of arguments, got int"),
        (lambda: Program("", []), "tests must be at least one Test, got none"),
        (lambda: Program(b"", [Test("")]), "source must be text"),
        (lambda: Program("", [Test([1])]), r"tests\[0\].input must be text or a list of lines, got list"),
        (lambda: Program("", [Test("", 5)]), r"tests\[0\].expected must be text or a list of lines, got int"),
        (lambda: Program("", [Test("1")], fn_name="f"), r"tests\[0\].input must be a list of arguments, got str"),
        (lambda: Program("", [Test([object()])], fn_name="f"), r"tests\[0\].input must be plain data, got a object"),
        (lambda: Program("", [Test([1], {1: object()})], fn_name="f"), r"tests\[0\].expected must be plain data"),
        (lambda: Program("", [Test([1], bytearray(b"x"))], fn_name="f"), "got a bytearray"),
        (lambda: Program("", ["x"]), r"tests\[0\] must be a Test, got 'x'"),
        (lambda: Program("", [Test("")], compare="lax"), "compare must be 'strict', 'apps' or None, got 'lax'"),
        (lambda: Program("", [Test("")], atol=-1), "atol must be a finite number of at least 0, got -1"),
        (lambda: Program("", [Test("")], isolate="none"), "isolate must be"),
        (lambda: Program("", [Test("")], isolate="program"), "isolate must be 'test' for a program that reads"),
        (lambda: Program("", [Test("")], limits=4), "limits must be Limits or None, got 4"),
        (lambda: Program("", [Test("")], fn_name=3), "fn_name must be a name or None, got 3"),
        (lambda: Sandbox(workers=0), "workers must be an integer above 0, got 0"),
        (lambda: Sandbox(require="some"), "require must be 'full' or 'best_effort', got 'some'"),
    ],
)
def test_refused_when_built(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_judging_needs_an_expected_answer(box: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"programs\[0\].tests\[1\].expected must be given"):
        box.judge([Program("", [Test("", ""), Test("")])])
    assert call(box, "def f(): pass", [], None) is Outcome.passed


def test_empty_batch(box: Sandbox) -> None:
    assert box.judge([]) == []


def test_closing_cancels_what_another_thread_judges() -> None:
    """It waited for the whole batch: with endless programs, for the limit of each."""
    box = Sandbox(workers=1, limits=Limits(wall_seconds=60, cpu_seconds=60))
    errors: list[BaseException] = []

    def judge() -> None:
        try:
            box.judge([Program("while True: pass", [Test("", "")])] * 2)
        except SandboxError as error:
            errors.append(error)

    threads = [threading.Thread(target=judge) for _ in range(2)]  # the second one waits for its turn
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    box.close()
    for thread in threads:
        thread.join(timeout=30)
    assert time.monotonic() - begun < 10
    assert [str(error) for error in errors] == ["the sandbox is closed"] * 2


def test_closed_sandbox() -> None:
    box = Sandbox(workers=1)
    box.close()
    box.close()
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        box.judge([Program("", [Test("", "")])])


def test_forked_process_has_no_sandbox(box: Sandbox) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            box.judge([Program("", [Test("", "")])])
        except SandboxError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    assert b"does not survive a fork" in os.read(reading, 1000)
    os.close(reading)
    assert outcome(box, "print(1)", expected="1") is Outcome.passed


def _digits(number: int) -> str:
    """Decimal digits without the interpreter's limit on them."""
    parts = []
    while number:
        number, part = divmod(number, 10**4000)
        parts.append(f"{part:04000d}")
    return "".join(reversed(parts)).lstrip("0")


NUMPY = """
import numpy as np
from numpy.random import default_rng
a = np.arange(6.0).reshape(2, 3)
print((a @ a.T).sum(), np.linalg.norm(a) > 7, default_rng(0).integers(10) >= 0)
try:
    import pytest
except ImportError:
    print("nothing else")
"""


def test_packages_that_are_named_can_be_imported() -> None:
    """And no other of the same folder. In a child that is forked from an interpreter that has them."""
    with Sandbox(workers=1, packages=["numpy"]) as box:
        run = box.run([Program(NUMPY, [Test("")])])[0]
        assert run.tests[0].output.splitlines() == ["83.0 True True", "nothing else"], run.tests[0].stderr
        calls = Program("import numpy\ndef f(n):\n    return numpy.ones(n)", [Test([2], [1.0, 1.0])], fn_name="f")
        assert box.judge([calls])[0].outcome is Outcome.passed
        hog = Program("import numpy\nprint(numpy.ones(1 << 28).sum())", [Test("", "")])
        assert box.judge([hog])[0].outcome is Outcome.memory_limit


@pytest.mark.parametrize("name", ["no_such_package", "numpy.linalg", "../numpy", 3])
def test_package_that_is_not_there_is_named(name: object) -> None:
    with pytest.raises(ValueError, match=r"packages\[0\] must be the name of an installed package, got"):
        Sandbox(workers=1, packages=[name])  # type: ignore[list-item]


def test_module_that_the_preamble_hides_is_there_too(box: Sandbox) -> None:
    """`from bisect import *` ends with a function of the module's name."""
    source = "def f(n):\n    a = [1, 3, 5]\n    return [bisect(a, n), bisect.bisect_left(a, n), bisect_right(a, n)]"
    assert call(box, source, [3], [2, 1, 2]) is Outcome.passed


def test_integer_beyond_the_floats_is_not_infinite(box: Sandbox) -> None:
    assert call(box, "def f(n): return 10 ** n", [400], float("inf")) is Outcome.wrong_answer
    assert call(box, "def f(n): return -10 ** n", [400], float("-inf")) is Outcome.wrong_answer
    assert call(box, "def f(n): return float('inf')", [400], float("inf")) is Outcome.passed


def test_compiler_that_lacks_memory(box: Sandbox) -> None:
    """Memory that the source needs is the program's; a parser that gives up is not a matter of memory."""
    lists = "x = [" + "1, " * 3_000_000 + "]"
    assert outcome(box, lists, limits=Limits(wall_seconds=60, cpu_seconds=60, memory_mb=128)) is Outcome.memory_limit
    assert outcome(box, "x = " + "-" * 200_000 + "1") is Outcome.compile_error


@pytest.mark.slow
def test_results_of_a_shared_child_are_not_kept() -> None:
    """1,000 results of 1 MB: judged as they come, one after the other."""
    source = "def f(n): return bytes(1_000_000)"
    program = Program(source, [Test([n], bytes(1_000_000)) for n in range(1000)], fn_name="f", isolate="program")
    with Sandbox(workers=1, limits=Limits(wall_seconds=60, cpu_seconds=600)) as box:
        box.judge([Program("print(1)", [Test("", "1")])])
        before = peak_kb()
        assert box.judge([program])[0].outcome is Outcome.passed
        assert peak_kb() - before < 200_000


def peak_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_package_that_needs_another_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needing.py").write_text("import needed_by_it")
    (tmp_path / "needed_by_it.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        SandboxError, match=r"package needing needs needed_by_it: install it .*, and name it among the packages too"
    ):
        Sandbox(workers=1, packages=["needing"])
    with Sandbox(workers=1, packages=["needed_by_it", "needing"]) as box:
        assert outcome(box, "import needing\nprint(needing.needed_by_it.x)", expected="1") is Outcome.passed


def test_sorted_containers_and_numpy() -> None:
    """Packages that contest programs import beside the standard library."""
    pytest.importorskip("sortedcontainers")
    source = (
        "import numpy as np\nfrom sortedcontainers import SortedList\nprint(np.arange(3).sum(), SortedList([2, 1])[0])"
    )
    with Sandbox(workers=1, packages=["numpy", "sortedcontainers"]) as box:
        assert outcome(box, source, expected="3 1") is Outcome.passed

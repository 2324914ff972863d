"""Attacks on the verdict: programs that look for the answer, fake a result, or speak in our name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test, TestVerdict

SECRET = "70b1d3f9"
HARNESS = Path(__file__).parents[2] / "rust/refinerl-sandbox/python"
Judge = Callable[..., TestVerdict]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_seconds=20, cpu_seconds=10)) as box:
        yield box


@pytest.fixture
def prints(box: Sandbox) -> Judge:
    """Judge a script whose right answer is SECRET."""
    return lambda source, stdin="": box.judge([Program(source, [Test(stdin, SECRET)])])[0].tests[0]


@pytest.fixture
def returns(box: Sandbox) -> Judge:
    """Judge a function `f` whose right answer is SECRET."""

    def judge(source: str, **options: object) -> TestVerdict:
        return box.judge([Program(source, [Test([1], SECRET)], fn_name="f", **options)])[0].tests[0]

    return judge


def test_answer_is_in_no_object_of_the_interpreter(prints: Judge) -> None:
    """Every object the collector knows is searched. Not covered: memory that was freed and not overwritten."""
    source = (
        "import gc\ngc.unfreeze()\nfor o in gc.get_objects():\n"
        f"    try:\n        if '{SECRET[:4]}' + '{SECRET[4:]}' in str(o): print('found')\n"
        "    except BaseException: pass"
    )
    # The source holds the two halves only; what it finds are the constants that the compiler folded from them.
    verdict = prints(source)
    assert (verdict.outcome, verdict.got in ("line 1: nothing", "line 1: found")) == (Outcome.wrong_answer, True)


def test_answer_is_in_no_frame(prints: Judge) -> None:
    """Locals and globals of all callers. Not covered: frames of C functions, which hold nothing of ours either."""
    source = (
        "import sys\nf = sys._getframe()\nwhile f:\n"
        "    print([v for v in (*f.f_locals.values(), *f.f_globals.values()) if isinstance(v, str) and len(v) == 8])\n"
        "    f = f.f_back"
    )
    verdict = prints(source)
    assert verdict.outcome is Outcome.wrong_answer
    assert SECRET not in verdict.got


def test_answer_is_not_in_our_own_address_space(box: Sandbox) -> None:
    """The readable memory is searched for the answer through a pipe's write, which needs no /proc.

    Not covered: memory of other processes, which other tests show to be out of reach.
    """
    source = (
        "import ctypes, os\nneedle = bytes.fromhex('37306231') + bytes.fromhex('64336639')\n"
        "base = id(None) & ~0xfff\nr, w = os.pipe()\nfound = 0\n"
        "libc = ctypes.CDLL(None)\nfor page in range(base - (4 << 20), base + (4 << 20), 4096):\n"
        "    if libc.write(w, ctypes.c_void_p(page), 4096) == 4096 and needle in os.read(r, 4096): found += 1\n"
        "print('found' if found > 1 else 'nothing')"
    )
    assert box.run([Program(source, [Test("")])])[0].tests[0].output == "nothing\n"


def test_no_descriptor_beyond_the_standard_ones(box: Sandbox) -> None:
    """A script holds 0, 1 and 2. Not covered: what those three lead to, which are pipes of this test alone."""
    source = (
        "import os\nopen_ = []\nfor fd in range(1024):\n"
        "    try:\n        os.fstat(fd); open_.append(fd)\n    except OSError: pass\nprint(open_)"
    )
    assert box.run([Program(source, [Test("")])])[0].tests[0].output == "[0, 1, 2]\n"


def test_status_pipe_is_closed_before_the_program_runs(prints: Judge) -> None:
    """A script cannot claim that it compiled, or that it did not: writing to descriptor 3 fails."""
    assert "Bad file descriptor" in prints("import os\nos.write(3, b'c')").stderr


def test_import_time_code_cannot_write_the_status(returns: Judge) -> None:
    """The same for call-based programs, whose module body runs first."""
    assert returns("import os\nos.write(3, b'r')\ndef f(n): return n").outcome is Outcome.runtime_error


def test_garbage_on_the_result_pipe(returns: Judge) -> None:
    """Bytes that are no frame are a runtime error. Not covered: a frame with the right answer, which is an answer."""
    assert returns("import os\nos.write(4, b'passed' * 100)\ndef f(n): return n").outcome is not Outcome.passed


def test_forged_frame_is_only_an_answer(returns: Judge) -> None:
    """A well-formed frame is compared like any result: it says a value, never an outcome."""
    source = (
        "import os, struct, marshal\np = marshal.dumps('passed', 2)\n"
        "os.write(4, struct.pack('<cdI', b'v', 0.0, len(p)) + p)\nos._exit(0)\ndef f(n): pass"
    )
    assert returns(source).outcome is Outcome.wrong_answer


def test_two_results_for_one_test(returns: Judge) -> None:
    """A second frame has no place. Not covered: which of two the program meant."""
    source = (
        "import os, struct, marshal\np = marshal.dumps(1, 2)\nframe = struct.pack('<cdI', b'v', 0.0, len(p)) + p\n"
        "os.write(4, frame * 3)\nos._exit(0)\ndef f(n): pass"
    )
    assert returns(source).outcome in (Outcome.runtime_error, Outcome.output_limit)


def test_frame_of_four_gigabytes(returns: Judge) -> None:
    """A length is never believed: no memory is taken for it."""
    source = "import os, struct\nos.write(4, struct.pack('<cdI', b'v', 0.0, 2**32 - 1))\nos._exit(0)\ndef f(n): pass"
    assert returns(source).outcome is Outcome.output_limit


def test_list_that_claims_two_billion_items(returns: Judge) -> None:
    """The decoder checks counts against the bytes that are there."""
    source = (
        "import os, struct\np = b'[' + struct.pack('<I', 2**31)\n"
        "os.write(4, struct.pack('<cdI', b'v', 0.0, len(p)) + p)\nos._exit(0)\ndef f(n): pass"
    )
    assert returns(source).outcome is Outcome.runtime_error


def test_code_object_as_result(returns: Judge) -> None:
    """marshal also carries code, which nothing on our side will load."""
    source = (
        "import os, struct, marshal\np = marshal.dumps(compile('1', 'x', 'eval'))\n"
        "os.write(4, struct.pack('<cdI', b'v', 0.0, len(p)) + p)\nos._exit(0)\ndef f(n): pass"
    )
    assert returns(source).outcome is Outcome.runtime_error


def test_equal_to_everything(returns: Judge) -> None:
    """An object with `__eq__` is no plain data. Not covered: none needed, comparison never runs Python."""
    assert returns("class E:\n    def __eq__(s, o): return True\ndef f(n): return E()").outcome is Outcome.runtime_error


def test_string_subclass_is_taken_by_value(returns: Judge) -> None:
    """A str that claims to be equal to all is the text it holds, however `__str__` and `encode` lie."""
    source = (
        "class S(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\n"
        f"    def __str__(s): return '{SECRET}'\ndef f(n): return S('x')"
    )
    verdict = returns(source)
    assert (verdict.outcome, verdict.got) == (Outcome.wrong_answer, '"x"')


def test_list_subclass_is_taken_by_its_items(box: Sandbox) -> None:
    """`__iter__` of a subclass is not asked."""
    source = "class L(list):\n    def __iter__(s): return iter([1, 2])\ndef f(n): return L([3])"
    assert box.judge([Program(source, [Test([0], [1, 2])], fn_name="f")])[0].outcome is Outcome.wrong_answer


def test_replaced_marshal(returns: Judge) -> None:
    """The module may be patched; what it then sends is still only a value."""
    source = "import marshal\nmarshal.dumps = lambda *a: b'T'\ndef f(n): return n"
    assert returns(source).outcome is Outcome.wrong_answer


def test_replaced_exit(prints: Judge) -> None:
    """Patching os._exit keeps the harness from ending the process; the clock ends it."""
    assert prints("import os\nos._exit = lambda code: None").outcome is not Outcome.passed


def test_harness_is_not_importable(prints: Judge) -> None:
    """The harness's modules are not in sys.modules. Not covered: its frames, which `sys._getframe` shows; they hold
    the program's own source and limits, and nothing of other tests."""
    names = [path.stem for path in sorted(HARNESS.glob("*.py"))]
    assert "zygote" in names
    source = (
        f"for name in {names}:\n    try:\n        __import__(name)\n"
        f"    except ModuleNotFoundError:\n        continue\n    raise SystemExit(name)\nprint('{SECRET}')"
    )
    verdict = prints(source)
    assert verdict.outcome is Outcome.passed, verdict.stderr


def test_harness_in_the_frames_holds_no_socket(box: Sandbox) -> None:
    """The command socket's object is reachable through frames; its descriptor is closed, or the program's own."""
    source = (
        "import sys, socket\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\nprint(sorted(f.f_locals))\n"
        "for i in range(8):\n    for v in list(sys._getframe(i).f_locals.values()):\n"
        "        if isinstance(v, socket.socket): v.send(b'x' + bytes(12))"
    )
    verdict = box.judge([Program("import sys\n" + source, [Test("", "")])])[0].tests[0]
    assert verdict.outcome is not Outcome.sandbox_error
    assert verdict.outcome is not Outcome.passed


def test_state_does_not_reach_the_next_test(box: Sandbox) -> None:
    """Patched builtins are whole in the next test. Not covered: `isolate="program"`, whose tests share a child."""
    bad = Program("import builtins\nbuiltins.print = None", [Test("", "")])
    good = Program("print(1)", [Test("", "1")])
    outcomes = [verdict.outcome for _ in range(4) for verdict in box.judge([bad, good])]
    assert outcomes == [Outcome.passed] * 8


def test_silent_success_is_no_answer(prints: Judge) -> None:
    """Exit code 0 without output."""
    assert prints("import os\nos._exit(0)").outcome is Outcome.wrong_answer


def test_right_answer_and_a_crash(prints: Judge) -> None:
    """Output counts only if the program ends normally."""
    assert prints(f"print('{SECRET}', flush=True)\nimport os\nos.abort()").outcome is Outcome.runtime_error


def test_right_answer_then_never_ending(box: Sandbox) -> None:
    """The clock beats the answer."""
    program = Program("print(1, flush=True)\nwhile True: pass", [Test("", "1")], limits=Limits(wall_seconds=0.5))
    assert box.judge([program])[0].outcome is Outcome.timeout


def test_syntax_error_raised_by_the_program(returns: Judge) -> None:
    """A program cannot choose compile_error, whatever it raises."""
    assert returns("def f(n): raise SyntaxError('x')").outcome is Outcome.runtime_error


def test_forged_frames_for_all_tests_of_a_program(box: Sandbox) -> None:
    """With `isolate="program"` a child answers for its own tests, and those only; each answer is still compared."""
    forger = (
        "import os, struct, marshal\ndef frame(tag, p): return struct.pack('<cdI', tag, 0.0, len(p)) + p\n"
        "os.write(4, frame(b's', b'') + frame(b'v', marshal.dumps(7, 2)) * 3)\nos._exit(0)\ndef f(n): pass"
    )
    tests = [Test([1], 7), Test([2], 8), Test([3], 9)]
    honest = Program("def f(n): return n + 6", tests, fn_name="f", isolate="program")
    forged, good = box.judge([Program(forger, tests, fn_name="f", isolate="program"), honest])
    assert [test.outcome for test in forged.tests[1:]] == [Outcome.wrong_answer, Outcome.wrong_answer]
    assert good.outcome is Outcome.passed


def test_negative_time_in_a_frame(box: Sandbox) -> None:
    """Times in frames come from the child and may lie; the clock that ends it is ours."""
    source = (
        "import os, struct\ndef f(n):\n    os.write(4, struct.pack('<cdI', b'v', float('-inf'), 1) + b'N')\n"
        "    while True: pass"
    )
    program = Program(
        source, [Test([1], 1), Test([2], 1)], fn_name="f", isolate="program", limits=Limits(wall_seconds=0.5)
    )
    first, second = [test.outcome.value for test in box.judge([program])[0].tests]
    # On a machine that is so busy that the second is judged again alone, the forged frame is its answer.
    assert first == "wrong_answer"
    assert second in ("timeout", "wrong_answer")

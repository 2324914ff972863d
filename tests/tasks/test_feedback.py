"""Feedback for the refiner, which contains nothing of a hidden test."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refinerl.data.apps import Case, Problem
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward, Rollout
from refinerl.sandbox import Limits, Outcome, Sandbox, TestVerdict, Verdict
from refinerl.tasks.code import CodeTask
from refinerl.tasks.feedback import count_visible, feedback, syntax_error
from refinerl.tasks.user_reward import UserReward

DOUBLE = Problem("d", "Print twice n.", "", None, (Case("1\n", "2\n"), Case("2\n", "4\n"), Case("5\n", "10\n")), "", ())
ADD = Problem("a", "Return a + b.", "", "add", (Case([1, 2], 3), Case([2, 2], 4), Case([7, 8], 15)), "", ())


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_seconds=4.0, cpu_seconds=0.25, memory_mb=64, output_kb=16)) as box:
        yield box


def make(
    box: Sandbox, *problems: Problem, visible: int | float = 1, template: str = "refine_code_feedback"
) -> CodeTask:
    return CodeTask(
        problems, box, lambda m: [len(m)], refine_template=template, max_sandbox_errors=1, visible_tests=visible
    )


def rollout(task: CodeTask, source: str, index: int = 0) -> Rollout:
    """Make a scored y."""
    prompt = task.prompts()[index]
    completion = Completion((1,), (), f"```python\n{source}\n```", "stop")
    return Rollout(prompt, completion, task.score([prompt], [completion])[0], 0)


def told(task: CodeTask, source: str, index: int = 0) -> str:
    reward = rollout(task, source, index).reward
    assert reward is not None
    return reward.feedback


def test_a_wrong_answer(box: Sandbox) -> None:
    task = make(box, DOUBLE)
    assert told(task, "print(int(input()) + 3)") == (
        "Verdict: wrong answer, 0 of 3 tests pass.\nA test that fails:\nInput: 1\nExpected output: 2\n"
        "Output of the program: 4"
    )
    assert told(task, "n = int(input())\nprint(n + 1)") == (
        "Verdict: wrong answer, 1 of 3 tests pass.\nThe tests that may be shown pass; others do not."
    )
    assert told(task, "print(int(input()) * 2)") == "Verdict: all tests pass."


def test_a_wrong_result_of_a_call(box: Sandbox) -> None:
    assert told(make(box, ADD), "def add(a, b): return str(a)") == (
        "Verdict: wrong answer, 0 of 3 tests pass.\nA test that fails:\nCall: add(1, 2)\nExpected result: 3\n"
        'Result of the program: "1"'
    )


def test_an_error_shows_its_last_lines(box: Sandbox) -> None:
    text = told(make(box, DOUBLE), "n = int(input())\nprint(2 * n / (n - 1))")
    assert text.startswith("Verdict: run-time error, 0 of 3 tests pass.\nA test that fails:\nInput: 1\n")
    assert text.endswith("\nZeroDivisionError: division by zero")
    assert "Expected output: 2\nError, its last lines:\nTraceback" in text


def test_other_ends(box: Sandbox) -> None:
    task = make(box, DOUBLE)
    late = tuple(TestVerdict(Outcome.timeout, 4.0, 4.0, "") for _ in DOUBLE.tests)
    assert feedback(DOUBLE, "while True: pass", Verdict(Outcome.timeout, late), 1).endswith(
        "Expected output: 2\nThe program does not end well there: time limit exceeded."
    )
    assert told(task, "print('x' * 100_000)").endswith("not end well there: output limit exceeded.")
    assert told(task, "n = int(input())\nprint(n +") == (
        "Verdict: the program does not compile.\nError:\nline 2: print(n +\nSyntaxError: '(' was never closed"
    )


def test_people_see_the_first_failing_test_though_it_is_hidden(box: Sandbox) -> None:
    def failure(source: str, problem: Problem = DOUBLE) -> str:
        reward = rollout(make(box, problem), source).reward
        assert reward is not None
        assert reward.failure not in reward.feedback or not reward.failure
        return reward.failure

    assert failure("n = int(input())\nprint(n + 1)") == (
        "Test 2 of 3.\nInput: 2\nExpected output: 4\nOutput of the program: 3"
    )
    assert failure("def add(a, b):\n    return a * b if a == 2 else 3", ADD) == (
        "Test 3 of 3.\nCall: add(7, 8)\nExpected result: 15\nResult of the program: 3"
    )
    assert failure("print(2 * int(input()))") == ""


def test_people_see_why_a_program_does_not_compile(box: Sandbox) -> None:
    reward = rollout(make(box, DOUBLE), "print(").reward
    assert reward is not None
    assert reward.failure == "line 1: print(\nSyntaxError: '(' was never closed"


def test_the_first_failing_visible_test_is_shown(box: Sandbox) -> None:
    source = "n = int(input())\nprint(2 * n if n < 2 else 0)"
    assert "Input: 2\n" in told(make(box, DOUBLE, visible=2), source)
    assert "Input" not in told(make(box, DOUBLE, visible=1), source)
    assert "Input" not in told(make(box, DOUBLE, visible=0), "print(0)")


def test_long_values_are_cut(box: Sandbox) -> None:
    long = Problem("l", "?", "", None, (Case("7 " * 5000, "8 " * 5000), Case("1", "1")), "", ())
    text = told(make(box, long), "raise ValueError(input())")
    assert len(text) < 2500
    assert text.count("…") == 3  # input, expected output, error


@pytest.mark.parametrize(
    ("visible", "count"), [(0, 0), (2, 2), (3, 3), (0.0, 0), (0.34, 1), (0.5, 1), (1 / 3, 1), (0.99, 2), (1.0, 3)]
)
def test_a_number_or_a_share_of_the_tests_is_visible(visible: float, count: int) -> None:
    assert count_visible(DOUBLE, visible) == count


def test_more_visible_tests_than_there_are_are_refused(box: Sandbox) -> None:
    said = (
        "must be at most the number of tests of each problem, got 4 where problem d has 3: choose task.visible_tests=3,"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        make(box, DOUBLE, visible=4)


def test_a_reward_function_has_no_feedback() -> None:
    reward = UserReward(lambda **_: [1.0], "mine")
    with pytest.raises(
        UserError, match=r"refine_code_feedback uses \$feedback, which this task does not have: a reward"
    ):
        CodeTask([DOUBLE], None, lambda m: [1], reward=reward, refine_template="refine_code_feedback")
    task = CodeTask([DOUBLE], None, lambda m: [1], reward=reward)
    with pytest.raises(UserError, match="uses"):
        task.refined_by("refine_code_feedback")


@pytest.mark.parametrize("source", ["print(1)", "x = '\\d'"])
def test_what_compiles_has_no_syntax_error(source: str) -> None:
    assert syntax_error(source) == ""


@pytest.mark.parametrize("source", ["\0", "(" * 5000, "x = " + "-" * 50_000 + "1", "é = 'a\nb'", "\ud800"])
def test_any_text_has_a_syntax_error_in_a_few_words(source: str) -> None:
    assert 0 < len(syntax_error(source)) <= 401


# --- no byte of a hidden test reaches a prompt -----------------------------------------------------


TALKERS = [
    "print({0})",
    "raise ValueError({0})",
    "import sys\nsys.stderr.write({0})",
    "import sys\nsys.exit({0})",
    "print({0})\nprint(1 / 0)",
    "exec({0})",
    "import sys\nfor _ in range(50): print({0}, file=sys.stderr)\nraise RuntimeError",
    "open('/tmp/kept', 'a').write({0})\nprint(open('/tmp/kept').read())\nraise ValueError(open('/tmp/kept').read())",
    "import os\nos.environ['KEPT'] = os.environ.get('KEPT', '') + {0}\nraise ValueError(os.environ['KEPT'])",
    "assert False, {0}",
    "import warnings\nwarnings.warn({0})\nraise MemoryError({0})",
    "print({0} * 100_000)",
    "print(",
    "Sorry.",
]
"""Programs that reveal their input in every possible way; `{0}` is the input."""


def secret(random_: random.Random) -> str:
    return "".join(random_.choices("QXZJKVWqxzjkvw", k=24))


@pytest.mark.parametrize("visible", [0, 1, 2, 0.5, 1.0])
def test_no_byte_of_a_hidden_test_reaches_a_prompt(box: Sandbox, tmp_path: Path, visible: int | float) -> None:
    """Plant markers in the input and the expected value of every test, and look for them in every prompt."""
    random_ = random.Random(3)
    problems, markers = [], []
    for number in range(4):
        pairs = [(secret(random_), secret(random_)) for _ in range(4)]
        called = number % 2 == 1
        cases = tuple(
            Case([given, {"k": [given]}], {given: (expected,)}) if called else Case(f"{given}\n", f"{expected}\n")
            for given, expected in pairs
        )
        problems.append(Problem(str(number), "Guess.", "", "f" if called else None, cases, "", (pairs[3][1],)))
        markers.append(pairs)
    own = tmp_path / "own.txt"
    own.write_text("--- user\n$feedback $question\n--- assistant\nNo.\n--- user\n$feedback\n$response\n$feedback\n")
    task = make(box, *problems, visible=visible)
    tasks = [task, task.refined_by(str(own)), task.refined_by("refine_code")]
    shown_somewhere = False
    asked: list[tuple[Prompt, Completion]] = []
    for prompt in task.prompts():
        for talker in TALKERS:
            called = prompt.payload.fn_name is not None
            source = talker.format("a" if called else "input()")
            source = "def f(a, b):\n" + "\n".join(f"    {line}" for line in source.split("\n")) if called else source
            asked.append((prompt, Completion((1,), (), f"```python\n{source}\n```", "stop")))
    rewards = task.score([p for p, _ in asked], [c for _, c in asked])
    assert all(reward is not None for reward in rewards)
    for (prompt, completion), reward in zip(asked, rewards, strict=True):
        pairs = markers[int(prompt.id)]
        shown = count_visible(prompt.payload, visible)
        for each in tasks:
            text = " ".join(m["content"] for m in each.refine_prompt(Rollout(prompt, completion, reward, 0)))
            for given, expected in pairs[shown:]:
                assert not pieces(given) & pieces_of(text, given)
                assert not pieces(expected) & pieces_of(text, expected)
            shown_somewhere = shown_somewhere or any(expected in text for _, expected in pairs[:shown])
    assert shown_somewhere == (visible != 0)


def pieces(marker: str, length: int = 6) -> set[str]:
    return {marker[i : i + length] for i in range(len(marker) - length + 1)}


def pieces_of(text: str, marker: str) -> set[str]:
    return {piece for piece in pieces(marker) if piece in text}


# --- hard-coding -----------------------------------------------------------------------------------


def caught(task: CodeTask, before: str, after: str) -> bool:
    y = rollout(task, before)
    refined = Completion((1,), (), f"```python\n{after}\n```", "stop")
    return task.hard_coded(y, refined, task.score([y.prompt], [refined])[0])


WRONG = "print(int(input()) + 3)"
BY_HEART = "n = int(input())\nif n == 1:\n    print(2)\nelse:\n    print(0)"


def test_an_answer_by_heart_is_caught_where_it_was_shown(box: Sandbox) -> None:
    task = make(box, DOUBLE)
    assert caught(task, WRONG, BY_HEART)
    assert not caught(task.refined_by("refine_code"), WRONG, BY_HEART)
    assert not caught(make(box, DOUBLE, visible=0), WRONG, BY_HEART)
    assert not caught(task, "print(", BY_HEART)  # only the error was shown


def test_a_gain_in_the_shown_test_alone_is_caught(box: Sandbox) -> None:
    assert caught(make(box, DOUBLE), WRONG, "print(2)")
    assert not caught(make(box, DOUBLE), WRONG, "print(int(input()) ** 2 or 0)")  # fails the shown one too
    assert not caught(make(box, DOUBLE), WRONG, "n = int(input())\nprint(n * 2 if n < 5 else 0)")  # a hidden one too


def test_a_literal_by_heart_in_a_program_that_gains_a_hidden_test(box: Sandbox) -> None:
    by_heart = "n = int(input())\nif n == 5:\n    print(10)\nelse:\n    print(n + 1)"
    five_first = Problem("d", "?", "", None, DOUBLE.tests[::-1], "", ())
    assert caught(make(box, five_first), WRONG, by_heart)
    right = "n = int(input())\nif n == 5:\n    print(10)\nelse:\n    print(n * 2)"
    assert not caught(make(box, five_first), WRONG, right)  # it passes every hidden test: it is right


def test_what_has_no_reward_is_no_hard_coder(box: Sandbox) -> None:
    task = make(box, DOUBLE)
    y = rollout(task, WRONG)
    refined = Completion((1,), (), BY_HEART, "stop")
    assert not task.hard_coded(y, refined, None)
    unscored: Any = Rollout(y.prompt, y.completion, None, 0)
    assert not task.hard_coded(unscored, refined, Reward(1.0, "passed", 1.0))

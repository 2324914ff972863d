import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinerl.contracts import Task
from refinerl.data.apps import Case, Problem, official_prompt
from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward, Rollout
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, TestVerdict, Verdict
from refinerl.tasks.code import CodeTask, adaptive_reward, coarse_reward, rewards_of
from refinerl.tasks.user_reward import UserReward

DOUBLE = Problem("d", "Print twice n.", "", None, (Case("1\n", "2\n"), Case("2\n", "4\n"), Case("5\n", "10\n")), "", ())
ADD = Problem("a", "Return a + b.", "def add(a, b):\n", "add", (Case([1, 2], 3), Case([2, 2], 4)), "", ())
FENCED = "It is easy:\n```py\nprint(int(input()) * 3)\n```\nThat is all."


def encode(messages: Sequence[Message]) -> list[int]:
    return [len(message["content"]) for message in messages]


def answer(text: str) -> Completion:
    return Completion((1, 2), (), text, "stop")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=Limits(wall_seconds=2.0, cpu_seconds=1.0, memory_mb=64, output_kb=16)) as box:
        yield box


@pytest.fixture
def task(box: Sandbox) -> CodeTask:
    return CodeTask([DOUBLE, ADD], box, encode)


def test_closing_does_not_wait_for_programs_in_the_background() -> None:
    task = CodeTask([DOUBLE], Sandbox(workers=1, limits=Limits(wall_seconds=60, cpu_seconds=60)), encode)
    (prompt,) = task.prompts()
    task.expect(prompt, answer("while True: pass"))
    time.sleep(0.5)
    begun = time.monotonic()
    task.close()
    assert time.monotonic() - begun < 10


def test_what_is_expected_is_scored_as_what_is_not(task: CodeTask) -> None:
    prompts = [prompt for prompt in task.prompts() for _ in range(2)]
    answers = [answer(text) for text in (FENCED, "print(int(input()) * 2)", "def add(a, b): return 3", "def add(a)")]
    for prompt, text in zip(prompts, answers, strict=True):
        task.expect(prompt, text)
    assert task.score(prompts, answers) == CodeTask([DOUBLE, ADD], task._box, encode).score(prompts, answers)
    assert task.telemetry()["sandbox/tests_per_second"] > 0
    assert [r.value for r in task.score(prompts, answers) if r] == pytest.approx([-0.3, 1.0, 0.35, -1.0])
    assert task.telemetry()["sandbox/tests_per_second"] == 0  # each program is judged once


# Eqs. 7 and 8, number by number


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        ("compile_error", -1.0),
        ("runtime_error", -0.6),
        ("timeout", -0.6),
        ("memory_limit", -0.6),
        ("output_limit", -0.6),
        ("wrong_answer", -0.3),
        ("passed", 1.0),
    ],
)
def test_eq_7(outcome: str, value: float) -> None:
    assert coarse_reward(outcome) == value
    if outcome != "wrong_answer":
        assert adaptive_reward(outcome, 0.5) == value


@pytest.mark.parametrize(("rate", "value"), [(0.0, -0.3), (0.25, 0.025), (0.5, 0.35), (1.0, 1.0)])
def test_eq_8(rate: float, value: float) -> None:
    assert adaptive_reward("wrong_answer", rate) == pytest.approx(value, abs=1e-12)


@given(st.floats(0, 1, exclude_max=True))
def test_eq_8_keeps_the_order_of_the_classes(rate: float) -> None:
    ordered = [adaptive_reward(o, rate) for o in ("compile_error", "runtime_error", "wrong_answer", "passed")]
    assert ordered == sorted(ordered)
    assert ordered[0] < ordered[1] < ordered[2]


@pytest.mark.parametrize("outcome", ["sandbox_error", "not_run"])
def test_outcomes_that_are_no_reward(outcome: str) -> None:
    with pytest.raises(ValueError, match=f"outcome must be one of .*, got '{outcome}'"):
        coarse_reward(outcome)


# Real programs in the real sandbox

PROGRAMS = [
    ("print(int(input()) * 2)", "passed", 1.0, 1.0),
    ("n = int(input())\nprint(n + n if n < 3 else 0)", "wrong_answer", 2 / 3, -0.3 + 1.3 * 2 / 3),
    ("print('no')", "wrong_answer", 0.0, -0.3),
    ("n = int(input())\nprint(2 * n)\nn / (n - 2)", "runtime_error", 2 / 3, -0.6),
    ("n = int(input())\nwhile n == 1: pass\nprint(0)", "timeout", 0.0, -0.6),
    ("print('x' * 100_000)", "output_limit", 0.0, -0.6),
    ("x = bytearray(1 << 30)", "memory_limit", 0.0, -0.6),
    ("print(2 *", "compile_error", 0.0, -1.0),
    ("Sorry, I cannot.", "compile_error", 0.0, -1.0),
]


@pytest.mark.parametrize("reward", ["adaptive", "coarse"])
@pytest.mark.slow
def test_rewards_of_programs(box: Sandbox, reward: Any) -> None:
    task: Task = CodeTask([DOUBLE, ADD], box, encode, reward=reward)
    double, add = task.prompts()
    completions = [answer(f"Here:\n```python\n{source}\n```") for source, *_ in PROGRAMS]
    completions.append(answer("def add(a, b):\n    return a + b"))
    *rewards, last = task.score([double] * len(PROGRAMS) + [add], completions)
    assert last == Reward(1.0, "passed", 1.0)
    for (_, outcome, rate, value), given_ in zip(PROGRAMS, rewards, strict=True):
        assert given_ is not None
        assert (given_.outcome, given_.pass_rate) == (outcome, pytest.approx(rate))
        assert given_.value == pytest.approx(value if reward == "adaptive" else coarse_reward(outcome))


# One child for all tests of a program

CALLED = [
    "def add(a, b): return a + b",
    "from functools import cache\n@cache\ndef add(a, b): return a + b",
    "class Solution:\n    def add(self, a, b): return sum([a, b])",
    "def add(a, b): return 3",
    "def add(a, b): return 4 / (2 - a)",
    "def add(a, b): return bytearray(1 << 30)",
    "1 / 0\ndef add(a, b): return a + b",
    "def other(a, b): return a + b",
    "import os\ndef add(a, b): os._exit(0)",
    "def add(a, b) return a + b",
]
SLOW = ["def add(a, b):\n    while a > 1: pass\n    return a + b"]


def judged(box: Sandbox, isolate: Any, *sources: str, **options: Any) -> list[Reward | None]:
    task = CodeTask([ADD], box, encode, isolate=isolate, **options)
    return task.score(task.prompts() * len(sources), [answer(source) for source in sources])


@pytest.mark.parametrize("sources", [CALLED, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_one_child_for_all_tests_gives_honest_programs_the_same_rewards(box: Sandbox, sources: list[str]) -> None:
    """The verdict of each test and the feedback, too, which `==` leaves out."""
    apart, together = judged(box, "test", *sources), judged(box, "program", *sources)
    found = ["passed"] * 3 + ["wrong_answer", "runtime_error", "memory_limit"] if sources is CALLED else ["timeout"]
    assert [r and r.outcome for r in apart[: len(found)]] == found
    for source, one, other in zip(sources, apart, together, strict=True):
        assert one is not None
        assert other is not None
        assert (one, one.passed) == (other, other.passed), source
        assert one.feedback == other.feedback, source


def test_one_child_for_all_tests_keeps_state_and_sees_hidden_inputs(box: Sandbox) -> None:
    """docs/sandbox.md names both as the price of `sandbox.isolate=program`; no input reaches a prompt."""
    counts = "n = -1\ndef add(a, b):\n    global n\n    n += 1\n    return a + b + n"
    (apart,), (together,) = judged(box, "test", counts), judged(box, "program", counts)
    assert (apart and apart.passed, together and together.passed) == ((True, True), (True, False))
    shows = (
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while 'inputs' not in f.f_locals: f = f.f_back\n"
        "    raise ValueError(f.f_locals['inputs'])"
    )
    (apart,), (together,) = judged(box, "test", shows), judged(box, "program", shows)
    assert apart is not None
    assert together is not None
    assert ("[2, 2]" in apart.feedback, "[2, 2]" in together.feedback) == (False, True)
    (told,) = judged(box, "program", shows, refine_template="refine_code_feedback")
    assert told is not None
    assert "[1, 2]" in told.feedback
    assert "[2, 2]" not in told.feedback


def test_programs_that_read_standard_input_have_a_child_for_each_test_in_any_case(box: Sandbox) -> None:
    task = CodeTask([DOUBLE], box, encode, isolate="program")
    assert task.score(task.prompts(), [answer("print(int(input()) * 2)")]) == [Reward(1.0, "passed", 1.0)]


def test_compile_error_wins_over_run_time_error_over_failure(task: CodeTask) -> None:
    double = task.prompts()[0]
    every = "n = int(input())\nif n == 1: print(n / 0)\nprint(0)"
    assert task.score([double, double], [answer(every), answer(every + "\n(")]) == [
        Reward(-0.6, "runtime_error", 0.0),
        Reward(-1.0, "compile_error", 0.0),
    ]


BLOCKS = {"first": "print(2)", "longest": "print(2 * int(input()))", "last": "1"}
SEVERAL = "\nor\n".join(f"```python\n{code}\n```" for code in BLOCKS.values())


@pytest.mark.parametrize(("block", "value"), [("first", 0.1333), ("longest", 1.0), ("last", -0.3)])
def test_the_block_that_counts(box: Sandbox, block: Any, value: float) -> None:
    task = CodeTask([DOUBLE], box, encode, block=block)
    assert task.extract(SEVERAL) == BLOCKS[block]
    (reward,) = task.score(task.prompts(), [answer(SEVERAL)])
    assert reward is not None
    assert reward.value == pytest.approx(value, abs=1e-3)
    assert task.telemetry()["completion/several_blocks"] == 1
    refined = task.refined_response(rollout(SEVERAL, task.prompts()[0]), "y = 1")
    assert task.extract(refined) == "y = 1"  # though it is not the longest any more
    assert ("or" in refined) == (block != "longest")


class Faulty(Sandbox):
    """Fails on programs with the word `faulty`: always, or in the background alone."""

    def __init__(self, always: bool) -> None:
        super().__init__(workers=1)
        self.always = always

    def judge(self, programs: Sequence[Program]) -> list[Verdict]:
        fails = self.always or threading.current_thread().name == "judging"
        return [
            _fault(verdict) if fails and "faulty" in program.source else verdict
            for program, verdict in zip(programs, super().judge(programs), strict=True)
        ]


def _fault(verdict: Verdict) -> Verdict:
    outcome = Outcome.sandbox_error
    return replace(verdict, outcome=outcome, tests=tuple(replace(test, outcome=outcome) for test in verdict.tests))


@pytest.mark.parametrize("always", [True, False])
def test_telemetry_counts_answers_without_a_reward(always: bool) -> None:
    """Not programs, of which several answers may be one, and not the attempts to judge one."""
    with Faulty(always) as box:
        task = CodeTask([DOUBLE], box, encode, max_sandbox_errors=0.9)
        texts = ["print(1)  # faulty"] * 5 + ["print(2)"]
        prompts, answers = [*task.prompts()] * 6, [answer(text) for text in texts]
        for prompt, text in zip(prompts, answers, strict=True):
            task.expect(prompt, text)
        masked = [reward is None for reward in task.score(prompts, answers)]
        assert masked == [always] * 5 + [False]
        assert task.telemetry()["sandbox/errors"] == sum(masked)
        assert task.telemetry()["sandbox/errors"] == 0


def test_telemetry_counts_tests_since_the_last_call(task: CodeTask) -> None:
    assert task.telemetry() == {
        "sandbox/tests_per_second": 0.0,
        "sandbox/errors": 0.0,
        "completion/several_blocks": 0.0,
    }
    task.score([task.prompts()[0]], [answer("print(1)")])
    metrics = task.telemetry()
    assert 1 < metrics["sandbox/tests_per_second"] < 1e6
    assert task.telemetry()["sandbox/tests_per_second"] == 0.0


@pytest.mark.parametrize(
    ("size", "lost", "share", "ends"),
    [
        (4, 0, 0.01, False),
        (4, 1, 0.01, False),
        (4, 2, 0.01, True),
        (4, 2, 0.5, False),
        (4, 1, 0.0, True),
        (1, 1, 0.01, True),
        (4, 4, 1.0, True),
        (250, 2, 0.01, False),
        (250, 3, 0.01, True),
    ],
)
def test_faults_of_the_sandbox_are_masked_and_too_many_end_the_run(
    size: int, lost: int, share: float, ends: bool
) -> None:
    test = TestVerdict(Outcome.passed, 0.1, 0.1, "")
    verdicts = [Verdict(Outcome.sandbox_error if i < lost else Outcome.passed, (test,)) for i in range(size)]
    if ends:
        with pytest.raises(SandboxError, match=f"failed on {lost} of {size} programs"):
            rewards_of(verdicts, "adaptive", share)
    else:
        rewards = rewards_of(verdicts, "adaptive", share)
        assert rewards == [None] * lost + [Reward(1.0, "passed", 1.0)] * (size - lost)


# Prompts


def test_prompts(box: Sandbox) -> None:
    double, add = CodeTask([DOUBLE, ADD], box, encode, system="You write Python.").prompts()
    assert (double.id, double.payload) == ("d", DOUBLE)
    assert double.messages[0] == {"role": "system", "content": "You write Python."}
    assert double.messages[-1]["role"] == "user"
    assert double.text in double.messages[-1]["content"]
    assert double.text.startswith("Print twice n.")
    assert double.token_ids == tuple(encode(double.messages))
    assert "def add(a, b):" in add.text


def test_apps_prompt_format(box: Sandbox) -> None:
    (add,) = CodeTask([ADD], box, encode, prompt_format="apps").prompts()
    assert add.messages == ({"role": "user", "content": official_prompt(ADD)},)


def test_long_prompts_are_left_out_and_counted(box: Sandbox) -> None:
    def spell(messages: Sequence[Message]) -> list[int]:
        return [ord(letter) for message in messages for letter in message["content"]]

    lengths = {p.id: len(p.token_ids) for p in CodeTask([DOUBLE, ADD], box, spell).prompts()}
    shorter = min(lengths, key=lengths.__getitem__)
    task = CodeTask([DOUBLE, ADD], box, spell, max_prompt_tokens=lengths[shorter])
    assert ([p.id for p in task.prompts()], task.too_long) == ([shorter], 1)
    with pytest.raises(UserError, match="no problem is left: all prompts have more than 1 tokens"):
        CodeTask([DOUBLE, ADD], box, spell, max_prompt_tokens=1)


def test_a_test_that_cannot_be_used_is_told_at_the_start(box: Sandbox) -> None:
    odd = Problem("odd", "q", "", "f", (Case([1], object()),), "", ())
    with pytest.raises(UserError, match=r"problem odd: a test cannot be used: .*expected"):
        CodeTask([odd], box, encode)


def test_without_a_box_only_a_user_function_can_score() -> None:
    with pytest.raises(ValueError, match="box must be a Sandbox for reward 'adaptive', got None"):
        CodeTask([DOUBLE], None, encode)


# A reward function of the user's


def test_user_reward() -> None:
    seen: dict[str, Any] = {}

    def mine(completions: Any, **columns: Any) -> list[float | None]:
        seen.update(columns)
        return [None, 2.5]

    task = CodeTask([DOUBLE, ADD], None, encode, reward=UserReward(mine))
    assert task.max_reward is None
    assert task.score(task.prompts(), [answer("a"), answer("b")]) == [None, Reward(2.5, "scored")]
    assert seen["problem_id"] == ["d", "a"]
    assert seen["fn_name"] == [None, "add"]
    assert seen["inputs"] == [["1\n", "2\n", "5\n"], [[1, 2], [2, 2]]]
    assert seen["outputs"][1] == [3, 4]
    assert task.telemetry() == {}
    task.close()


def test_user_reward_that_needs_a_missing_column() -> None:
    def mine(completions: Any, reference: Any) -> list[float]:
        return []

    with pytest.raises(UserError, match=r"mine needs 'reference', but there is only .*solutions"):
        CodeTask([DOUBLE], None, encode, reward=UserReward(mine))


# ỹ


def rollout(text: str, prompt: Prompt) -> Rollout:
    return Rollout(prompt, answer(text), Reward(-0.3, "wrong_answer", 0.0), 0)


def test_refine_prompt_shows_question_and_whole_response(task: CodeTask) -> None:
    asked = task.refine_prompt(rollout("cost: $x\n```py\n1\n```", task.prompts()[0]))[-1]
    assert asked["role"] == "user"
    assert "Print twice n." in asked["content"]
    assert "cost: $x\n```py\n1\n```" in asked["content"]


def test_another_template_for_the_refiner(task: CodeTask, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("$question|$response\n")
    y = rollout("1", task.prompts()[0])
    assert task.refined_by(str(tmp_path / "mine.txt")).refine_prompt(y)[-1]["content"].endswith("|1")
    assert not task.refine_prompt(y)[-1]["content"].endswith("|1")


@pytest.mark.parametrize(
    ("y", "reply", "refined"),
    [
        # bare code goes into y's own fence, with its language and the text around it
        (FENCED, "print(int(input()) * 2)", FENCED.replace("3", "2")),
        (FENCED, "\nprint(int(input()) * 2)\n", FENCED.replace("3", "2")),
        ("```python\nprint(int(inp", "print(2)", "```python\nprint(2)\n```"),
        ("- a:\n  ```\n  x\n  ```", "for i in x:\n    i", "- a:\n  ```\n  for i in x:\n      i\n  ```"),
        # the last block is the one that counts
        ("```\na\n```\n```\nb\n```", "c", "```\na\n```\n```\nc\n```"),
        # chat text goes where the template's markers stand
        (
            FENCED,
            "Sure:\n<response>\nprint(2)\n</response>\nDone.",
            FENCED.replace("print(int(input()) * 3)", "print(2)"),
        ),
        ("print(3)", "<response>\n```\nprint(2)\n```\n</response>", "```\nprint(2)\n```"),
        # all else is the refiner's choice, verbatim
        (FENCED, "Fixed:\n```\nprint(2)\n```", "Fixed:\n```\nprint(2)\n```"),
        (FENCED, "```\nprint(2", "```\nprint(2"),
        (FENCED, "I think the response is right.", "I think the response is right."),
        (FENCED, "", ""),
        ("print(3)", "print(2)", "print(2)"),
        ("print(3)", "Here you go: print(2)", "Here you go: print(2)"),
    ],
)
def test_refined_response(task: CodeTask, y: str, reply: str, refined: str) -> None:
    assert task.refined_response(rollout(y, task.prompts()[0]), reply) == refined


@given(
    st.sampled_from(["x = 1", "if a:\n    b()\n", "\n\nprint('```')[0]\n".replace("`", "'")]),
    st.text("`ab\n ", max_size=30),
)
def test_bare_code_is_what_is_scored(code: str, y: str) -> None:
    task = CodeTask([DOUBLE], None, encode, reward=UserReward(lambda completions: []))
    refined = task.refined_response(rollout(y, task.prompts()[0]), code)
    assert task.extract(refined).strip("\n") == code.strip("\n")

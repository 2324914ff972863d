"""The corpus: errors at the stated rates, corrections that change wrong lines only, prompts as the run writes them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from refinerl.data.apps import Case, Problem
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.records import Completion, Rollout
from refinerl.sandbox import Sandbox
from refinerl.study.miniature import corpus
from refinerl.study.miniature.corpus import NO_ERRORS, Attempt, attempt
from refinerl.study.miniature.operations import OPERATIONS
from refinerl.study.miniature.problems import CORPUS, Exercise, draw
from refinerl.study.miniature.vocabulary import save_tokenizer
from refinerl.tasks.code import CodeTask

EXERCISE = Exercise((("last", 2), ("odds", 3), ("square", 4)))
ATTEMPT = Attempt(EXERCISE, ("a[:-2]", "[n for n in a if n % 2]", "[n * 2 for n in a]"), (False, True, False), "a", "n")


def test_a_correction_changes_wrong_lines_only():
    assert ATTEMPT.corrected(random.Random(0)) == (
        "def f(a):\n    a = a[-2:]\n    a = [n for n in a if n % 2]\n    a = [n * n for n in a]\n    return a"
    )
    right = replace(ATTEMPT, right=(True, True, True))
    assert right.corrected(random.Random(0)) == right.source


@pytest.mark.parametrize(("skill", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.45, 0.55), (1.0, 1.0, 1.0)])
def test_a_skill_is_the_share_of_lines_put_right(skill: float, low: float, high: float):
    rng = random.Random(0)
    first_lines = [ATTEMPT.corrected(rng, skill).splitlines()[1] for _ in range(1000)]
    assert set(first_lines) <= {"    a = a[-2:]", "    a = a[:-2]"}
    assert low <= first_lines.count("    a = a[-2:]") / 1000 <= high


def test_errors_have_the_stated_rates():
    rng = random.Random(0)
    wrong: dict[str, list[bool]] = {difficulty: [] for difficulty in corpus.ERRORS}
    for _ in range(3000):
        written = attempt(draw(rng, CORPUS), rng)
        for (name, _), right in zip(written.exercise.steps, written.right, strict=True):
            wrong[OPERATIONS[name].difficulty].append(not right)
    for difficulty, rate in corpus.ERRORS.items():
        assert abs(sum(wrong[difficulty]) / len(wrong[difficulty]) - rate) < 0.03
    assert all(attempt(EXERCISE, rng, NO_ERRORS).right)


def test_typing_errors_touch_one_or_two_tokens():
    rng, tokens = random.Random(0), list(range(30))
    lengths = {len(corpus.mistyped(tokens, rng, [99])) for _ in range(300)}
    assert lengths == {28, 29, 30, 31, 32}
    assert tokens == list(range(30))


def test_the_base_is_trained_on_the_prompts_of_a_run(tmp_path):
    save_tokenizer(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)
    problem = Problem("0", EXERCISE.question, "", "f", (Case([[1]], [1]),), "medium", ())
    with Sandbox(workers=1) as box:
        task = CodeTask([problem], box, tokenizer.encode_chat, prompt_format="apps", refine_template=corpus.TEMPLATE)
        (prompt,) = task.prompts()
        y = Completion(tokenizer.encode(ATTEMPT.source), (), ATTEMPT.source, "stop")
        asked = tokenizer.encode_chat(task.refine_prompt(Rollout(prompt, y, None, sample=0)))
    assert prompt.token_ids == tokenizer.encode(corpus.request(EXERCISE))
    assert asked == tokenizer.encode(corpus.request_to_correct(EXERCISE, ATTEMPT.source))

"""Rewards by rule, which check an answer against a column of the data: `task.reward=rule:NAME`.

The highest reward of a rule is 1, so that a response with 1 need not be refined; a row without a value in the column
has no reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refinerl.errors import UserError
from refinerl.tasks.countdown import countdown
from refinerl.tasks.math_rule import MathReward
from refinerl.tasks.user_reward import UserReward

MAX_REWARD = 1.0
"""The highest reward of every rule."""


def answer(completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
    r"""Compare the final answer with the column `answer`: 1 if they are equal, else 0.

    The final answer is in the last \boxed{…}, else it is the first number (or the line) after the last “answer is”,
    “answer:” or “####”, else the last number. Numbers are compared as numbers, texts without case. The column holds the
    answer alone, or a solution that marks it in one of these ways.

    >>> answer(["2 + 2 = 4, so the answer is 4.0", "It is 5"], answer=["4", "#### 4"])
    [1.0, 0.0]
    """
    return [
        None if expected is None else float(_same(final_answer(_text(completion)), _wanted(str(expected))))
        for completion, expected in zip(completions, answer, strict=True)
    ]


def matches(completions: Sequence[Any], pattern: Sequence[str | None]) -> list[float | None]:
    """Match the whole response with the regular expression in the column `pattern`: 1 if it matches, else 0.

    `.` matches line breaks too.

    >>> matches(["yes", "yes, sir"], pattern=["yes|no", "yes|no"])
    [1.0, 0.0]

    Raises:
        UserError: a pattern is not a regular expression.
    """
    try:
        return [
            None if regex is None else float(re.fullmatch(regex, _text(completion), re.DOTALL) is not None)
            for completion, regex in zip(completions, pattern, strict=True)
        ]
    except re.error as error:
        raise UserError(
            f"the column pattern holds {error.pattern!r}, which is not a regular expression: {error}"
        ) from None


RULES: Mapping[str, Callable[..., Any]] = {"answer": answer, "matches": matches, "countdown": countdown}
MATH = "math"
"""The rule that asks math-verify, in processes of its own."""


def load_rule(name: str, *, math_seconds: float = 5.0, workers: int = 1) -> UserReward:
    """Return the rule of this name as a reward function.

    Args:
        math_seconds: for `math`, the processor time for one response.
        workers: for `math`, the number of processes.

    Raises:
        UserError: there is no such rule, or math-verify is not installed.
    """
    if name == MATH:
        return MathReward(seconds=math_seconds, workers=workers)
    if name not in RULES:
        names = ", ".join((*RULES, MATH))
        raise UserError(f"there is no rule {name!r}; the rules of task.reward=rule:NAME are {names}")
    return UserReward(RULES[name], f"rule:{name}")


def final_answer(text: str) -> str:
    r"""Find the final answer in a response, as `answer` does; the whole text if it has neither a mark nor a number.

    >>> final_answer(r"So \boxed{1/2}."), final_answer("The answer is Paris."), final_answer("3 of 10")
    ('1/2', 'Paris', '10')
    """
    boxed = text.rfind("\\boxed{")
    if boxed >= 0:
        return _balanced(text[boxed + len("\\boxed{") :])
    marks = list(_MARK.finditer(text))
    if marks:
        line = text[marks[-1].end() :].strip().split("\n")[0]
        number = _NUMBER.search(line)
        return number[0] if number else line.rstrip(".").strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else text.strip()


def _wanted(expected: str) -> str:
    return final_answer(expected) if "\\boxed{" in expected or _MARK.search(expected) else expected.strip()


_MARK = re.compile(r"(?:answer\s*(?:is|:)|####)\s*:?", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def _balanced(text: str) -> str:
    """Return the text up to the brace that closes one opened before it; all of it if no brace does."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i].strip()
    return text.strip()


def _same(given: str, expected: str) -> bool:
    numbers = [text.replace(",", "").strip("$ %") for text in (given, expected)]
    if all(_NUMBER.fullmatch(number) for number in numbers):
        return float(numbers[0]) == float(numbers[1])
    return " ".join(given.lower().split()) == " ".join(expected.lower().split())


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])

"""Rewards by rule, which check an answer against a column of the data: `task.reward=rule:NAME`.

The highest reward of a rule is 1, so that a response with 1 need not be refined; a row without a value in the column
has no reward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refinerl.errors import UserError
from refinerl.tasks.countdown import countdown
from refinerl.tasks.math_rule import MathReward
from refinerl.tasks.quantities import quantity, whole_numbers
from refinerl.tasks.time_limit import alarmed
from refinerl.tasks.user_reward import UserReward

MAX_REWARD = 1.0
"""The highest reward of every rule."""


def answer(completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
    r"""Compare the final answer with the column `answer`: 1 if they are equal, else 0.

    The final answer is in the last \boxed{…}, else it is the first number or the line after the last “answer is”,
    “answer:” or “####”, else the last number or the whole response. A number that is a part of another, as of 1/2, 3:30
    or 5 million, does not count. Numbers are compared exactly, as numbers; a unit counts only if both have one. Texts
    are compared without case. The column holds the answer alone, or a solution that marks it in one of these ways.

    >>> answer(["2 + 2 = 4, so the answer is 4.0", "It is 5"], answer=["4 apples", "#### 4"])
    [1.0, 0.0]
    """
    return [
        None if expected is None else float(_is_right(_text(completion), str(expected)))
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


class MatchReward(UserReward):
    """The rule `matches`. A pattern may backtrack for ever on a response, so the message of the time limit names it."""

    def __init__(self, seconds: float = math.inf) -> None:
        super().__init__(self._score, "rule:matches", seconds=seconds)
        self._at: str | None = None

    def _score(self, completions: Sequence[Any], pattern: Sequence[str | None]) -> list[float | None]:
        def score() -> list[float | None]:
            values: list[float | None] = []
            for completion, regex in zip(completions, pattern, strict=True):
                self._at = regex
                values += matches([completion], [regex])
            return values

        return alarmed(self.seconds, score)

    def _too_long(self, where: str = "") -> str:
        return super()._too_long(f"{where}, at the pattern {self._at!r}")


RULES: Mapping[str, Callable[..., Any]] = {"answer": answer, "matches": matches, "countdown": countdown}
MATH = "math"
"""The rule that asks math-verify, in processes of its own."""


def load_rule(name: str, *, seconds: float = math.inf, math_seconds: float = 5.0, workers: int = 1) -> UserReward:
    """Return the rule of this name as a reward function.

    Args:
        name: without `rule:`.
        seconds: time limit for each call; `math` has its own.
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
    if name == "matches":
        return MatchReward(seconds)
    return UserReward(RULES[name], f"rule:{name}", seconds=seconds)


def final_answers(text: str) -> list[str]:
    r"""Find what may be the final answer of a response, as `answer` does, the likeliest first.

    >>> final_answers(r"So \boxed{1/2}."), final_answers("The answer is Apollo 11."), final_answers("3 of 10")
    (['1/2'], ['11', 'Apollo 11'], ['10', '3 of 10'])
    """
    boxed = text.rfind("\\boxed{")
    if boxed >= 0:
        return [_balanced(text[boxed + len("\\boxed{") :])]
    marks = list(_MARK.finditer(text))
    if marks:
        line = text[marks[-1].end() :].strip().split("\n")[0].lstrip(" *").rstrip(" .*")
        return [line] if quantity(line) else [*whole_numbers(line)[:1], line]
    return [*whole_numbers(text)[-1:], text.strip()]


def _is_right(response: str, expected: str) -> bool:
    marked = "\\boxed{" in expected or _MARK.search(expected)
    wanted = final_answers(expected)[0] if marked else expected.strip()
    return any(_same(given, wanted) for given in final_answers(response))


_MARK = re.compile(r"(?:answer\s*(?:is|:)|####)\s*:?", re.IGNORECASE)


def _balanced(text: str) -> str:
    """Return the text up to the brace that closes one opened before it; all of it if no brace does."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i].strip()
    return text.strip()


def _same(given: str, expected: str) -> bool:
    left, right = quantity(given), quantity(expected)
    if left is not None and right is not None:
        return left.equals(right)
    return " ".join(given.lower().split()) == " ".join(expected.lower().split())


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])

"""Rewards by rule, for data that brings what an answer is checked against: `task.reward=rule:NAME`.

Each gives 1 or 0, so a response that has 1 need not be refined; a row without its column has no reward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from refinerl.errors import UserError
from refinerl.tasks.user_reward import UserReward

MAX_REWARD = 1.0


def answer(completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
    r"""Is the final answer that of the column `answer`: what stands in the last \boxed{…}, else the first number (or
    the line) after the last “answer is”, “answer:” or “####”, else the last number. Numbers are compared as numbers,
    texts without case. The column holds the answer alone, or a solution that marks it in one of these ways.
    """
    return [
        None if expected is None else float(_same(final_answer(_text(completion)), _wanted(str(expected))))
        for completion, expected in zip(completions, answer, strict=True)
    ]


def matches(completions: Sequence[Any], pattern: Sequence[str | None]) -> list[float | None]:
    """Does the regular expression of the column `pattern` match the whole response; `.` matches line breaks too."""
    try:
        return [
            None if regex is None else float(re.fullmatch(regex, _text(completion), re.DOTALL) is not None)
            for completion, regex in zip(completions, pattern, strict=True)
        ]
    except re.error as error:
        raise UserError(
            f"the column pattern holds {error.pattern!r}, which is no regular expression: {error}"
        ) from None


RULES = {"answer": answer, "matches": matches}


def load_rule(name: str) -> UserReward:
    """The rule of this name as a reward function.

    Raises:
        UserError: there is none.
    """
    if name not in RULES:
        raise UserError(f"there is no rule {name!r}; task.reward=rule:NAME knows {', '.join(RULES)}")
    return UserReward(RULES[name], f"rule:{name}")


def final_answer(text: str) -> str:
    """What a response ends up with, as `answer` reads it; the whole text where there is neither mark nor number."""
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
    """Up to the brace that closes one opened before `text`; all of it where none does."""
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

"""The rule `rule:countdown`: an expression that makes a target of given numbers."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from refinerl.errors import UserError

PARTLY = 0.1
"""The reward of an expression that uses the numbers as asked and has another value."""
LONGEST = 200
"""Characters of the longest expression that is read."""


def countdown(
    completions: Sequence[Any], numbers: Sequence[Sequence[int] | None], target: Sequence[int | None]
) -> list[float | None]:
    r"""Reward 1 for an expression that uses each of the `numbers` once and equals the `target`; 0.1 for another value.

    The expression is in the last \boxed{…} or <answer>…</answer>, perhaps with `= target` behind it. It may use
    + - * / and parentheses; everything else has the reward 0.

    Raises:
        UserError: `numbers` holds something else than lists of whole numbers, or `target` something else than numbers.

    >>> countdown([r"\boxed{(4 - 1) * 5}", r"\boxed{4 + 1 + 5}", "5 * 3 = 15"], [[1, 4, 5]] * 3, [15] * 3)
    [1.0, 0.1, 0.0]
    """
    return [
        None
        if given is None or wanted is None
        else _score(completion if isinstance(completion, str) else str(completion[0]["content"]), *_read(given, wanted))
        for completion, given, wanted in zip(completions, numbers, target, strict=True)
    ]


def _read(given: Any, wanted: Any) -> tuple[Counter[int], Fraction]:
    """Read a row's numbers and target, which may be texts, as in a CSV file."""
    try:
        if isinstance(given, str):
            raise TypeError("a list is needed")
        return Counter(int(number) for number in given), Fraction(wanted)
    except (TypeError, ValueError, ArithmeticError):
        raise UserError(
            "rule:countdown needs a list of whole numbers in the column numbers, such as [1, 4, 5], and a number in "
            f"the column target, got {given!r} and {wanted!r}"
        ) from None


def _score(text: str, given: Counter[int], wanted: Fraction) -> float:
    found = _ANSWER.findall(text)
    if not found:
        return 0.0
    expression = next(part for part in found[-1] if part) if any(found[-1]) else ""
    for written, sign in _SIGNS.items():
        expression = expression.replace(written, sign)
    expression = expression.split("=")[0].strip()
    if len(expression) > LONGEST:
        return 0.0
    used: list[int] = []
    try:
        value = _value(ast.parse(expression, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return 0.0
    if Counter(used) != given:
        return 0.0
    return 1.0 if value == wanted else PARTLY


_ANSWER = re.compile(r"\\boxed\{([^{}]*)\}|<answer>(.*?)</answer>", re.DOTALL)
_SIGNS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}
_SIGNS |= {"\\left": "", "\\right": ""}
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.expr, used: list[int]) -> Fraction:
    """Compute an expression, and add the numbers in it to `used`.

    Raises:
        ValueError: it holds something else than numbers and the four operations.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, used), _value(node.right, used))
    raise ValueError("an expression must hold integers and + - * / only")

"""The operations of the miniature: words, difficulty, right idioms and plausible errors of each.

In an idiom `X` is the list, `V` the variable of a loop and `K` the operation's number; in the words only `K` occurs.

The errors at hard operations have one of two shapes. *Near* errors differ from a right idiom in a few tokens, so that a
model that learnt them also samples the right idiom now and then. *Far* errors share little with it: several improbable
tokens have to come together, so that sampling practically never yields it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

Shape = Literal["near", "far"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Operation:
    """A step of a problem, from a list to a list.

    >>> OPERATIONS["rotate"].question(3), fill(OPERATIONS["rotate"].right[0], 3, "x", "v")
    ('rotate 3', 'x[3:] + x[:3]')
    """

    words: str
    difficulty: Difficulty
    right: tuple[str, ...]
    """Equivalent idioms; corrections use the first."""
    wrong: tuple[str, ...]
    """Idioms that are often confused with the right ones."""

    def question(self, number: int) -> str:
        """Return the words of the operation with its number."""
        return self.words.replace("K", str(number))


def fill(idiom: str, number: int, values: str, value: str) -> str:
    """Return an idiom with the operation's number, the name of the list and that of the loop variable."""
    names = {"X": values, "V": value, "K": str(number)}
    return "".join(names.get(letter, letter) for letter in idiom)


def _every(element: str, condition: str = "") -> str:
    """Return a comprehension over X."""
    return f"[{element} for V in X{f' if {condition}' if condition else ''}]"


def _up_to(function: str, end: str) -> str:
    """Return a comprehension that applies a function to each beginning of X."""
    return f"[{function}(X[:{end}]) for V in range(len(X))]"


_TABLE: tuple[tuple[str, str, Difficulty, tuple[str, ...], tuple[str, ...]], ...] = (
    ("reverse", "reverse", "easy", ("X[::-1]", "list(reversed(X))"), ("X[::1]", "X[-1:]")),
    ("sort", "sort", "easy", ("sorted(X)",), ("sorted(X)[::-1]",)),
    ("first", "take first K", "easy", ("X[:K]",), ("X[K:]",)),
    ("drop", "drop first K", "easy", ("X[K:]",), ("X[:K]",)),
    ("add", "add K", "easy", (_every("V + K"),), (_every("V - K"), "X + K")),
    ("times", "times K", "easy", (_every("V * K"),), (_every("V + K"), "X * K")),
    ("square", "square", "easy", (_every("V * V"), _every("V ** 2")), (_every("V * 2"),)),
    ("evens", "keep even", "easy", (_every("V", "V % 2 == 0"),), (_every("V", "V % 2 == 1"),)),
    ("sum", "append sum", "easy", ("X + [sum(X)]",), ("[sum(X)] + X", "X + sum(X)")),
    ("length", "append length", "easy", ("X + [len(X)]",), ("X + len(X)", "[len(X)] + X")),
    ("last", "take last K", "medium", ("X[-K:]",), ("X[:-K]",)),
    ("shorten", "drop last K", "medium", ("X[:-K]",), ("X[-K:]", "X[:K]")),
    ("down", "sort down", "medium", ("sorted(X)[::-1]", "sorted(X, reverse=True)"), ("sorted(X)",)),
    ("odds", "keep odd", "medium", (_every("V", "V % 2 == 1"), _every("V", "V % 2")), (_every("V", "V % 2 == 0"),)),
    ("halve", "halve", "medium", (_every("V // 2"),), (_every("V / 2"), "X // 2")),
    ("repeat", "repeat K", "medium", ("X * K",), ("X + K", _every("V * K"))),
    ("step", "every K-th", "medium", ("X[::K]",), ("X[K:]", "X[:K]")),
    ("above", "keep above K", "medium", (_every("V", "V > K"),), (_every("V", "V >= K"),)),
    ("below", "keep below K", "medium", (_every("V", "V < K"),), (_every("V", "V <= K"),)),
    ("without", "without K", "medium", (_every("V", "V != K"),), (_every("V", "V == K"),)),
    ("rotate", "rotate K", "hard", ("X[K:] + X[:K]",), ("X[:K] + X[K:]",)),
    ("back", "rotate back K", "hard", ("X[-K:] + X[:-K]",), ("X[:-K] + X[-K:]",)),
    ("running", "running sums", "hard", (_up_to("sum", "V + 1"),), (_up_to("sum", "V"),)),
    ("records", "running max", "hard", (_up_to("max", "V + 1"),), (_up_to("max", "V"),)),
    ("unique", "unique", "hard", ("list(dict.fromkeys(X))",), ("list(set(X))", "sorted(set(X))")),
    ("distinct", "sort unique", "hard", ("sorted(set(X))",), ("sorted(X)", "list(dict.fromkeys(X))")),
    ("most", "at most K", "hard", (_every("min(V, K)"),), (_every("max(V, K)"), _every("V", "V <= K"))),
    ("least", "at least K", "hard", (_every("max(V, K)"),), (_every("min(V, K)"), _every("V", "V >= K"))),
    ("mirror", "mirror", "hard", ("X + X[::-1]",), ("X[::-1] + X", "X + X")),
    ("multiples", "multiples of K", "hard", (_every("V", "V % K == 0"),), (_every("V * K"),)),
    ("modulo", "modulo K", "hard", (_every("V % K"),), (_every("V // K"), "X % K")),
    ("divide", "divide by K", "hard", (_every("V // K"),), (_every("V / K"),)),
    ("from", "subtract from K", "hard", (_every("K - V"),), (_every("V - K"),)),
    ("lesser", "drop maxima", "hard", (_every("V", "V < max(X)"),), (_every("V", "V == max(X)"),)),
    ("greater", "drop minima", "hard", (_every("V", "V > min(X)"),), (_every("V", "V == min(X)"),)),
    ("gaps", "distance to max", "hard", (_every("max(X) - V"),), (_every("V - max(X)"),)),
    ("height", "distance to min", "hard", (_every("V - min(X)"),), (_every("min(X) - V"),)),
    ("total", "prepend sum", "hard", ("[sum(X)] + X",), ("X + [sum(X)]", "sum(X) + X")),
    ("size", "prepend length", "hard", ("[len(X)] + X",), ("X + [len(X)]", "len(X) + X")),
    ("top", "append max", "hard", ("X + [max(X)]",), ("X + [min(X)]", "X + max(X)")),
    ("bottom", "append min", "hard", ("X + [min(X)]",), ("X + [max(X)]", "X + min(X)")),
    ("counts", "counts", "hard", (_every("X.count(V)"),), (_every("len(X)"),)),
    ("second", "odd places", "hard", ("X[1::2]",), ("X[::2]",)),
    ("cube", "cube", "hard", (_every("V ** 3"),), (_every("V * 3"),)),
)

OPERATIONS = {name: Operation(words, difficulty, right, wrong) for name, words, difficulty, right, wrong in _TABLE}
"""name -> operation: 10 easy, 10 medium, 24 hard. Their errors are near."""

_FAR = {
    "rotate": ("sorted(X)",),
    "back": ("X[::-1]",),
    "running": ("X + [sum(X)]",),
    "records": ("X + [max(X)]",),
    "unique": ("sorted(X)",),
    "distinct": (_every("V", "V > K"), "X[::2]"),
    "most": ("X[:K]",),
    "least": ("X[K:]",),
    "mirror": ("X[:K]",),
    "multiples": ("X[::K]",),
    "modulo": ("X[:K]",),
    "divide": ("X[-K:]",),
    "from": ("sorted(X)[::-1]",),
    "lesser": ("sorted(X)[:-1]",),
    "greater": ("sorted(X)[1:]",),
    "gaps": ("X[::-1]",),
    "height": ("sorted(X)",),
    "total": ("X[::-1]",),
    "size": ("X + X",),
    "top": ("sorted(X)",),
    "bottom": ("X[::-1]",),
    "counts": ("X + [len(X)]",),
    "second": ("sorted(X)[::-1]",),
    "cube": ("X + X",),
}

SHAPED: Mapping[Shape, Mapping[str, Operation]] = {
    "near": OPERATIONS,
    "far": {name: replace(each, wrong=_FAR.get(name, each.wrong)) for name, each in OPERATIONS.items()},
}
"""shape -> name -> operation: the same operations, with other errors at the hard ones."""

OF_DIFFICULTY: dict[Difficulty, tuple[str, ...]] = {
    difficulty: tuple(name for name, operation in OPERATIONS.items() if operation.difficulty == difficulty)
    for difficulty in DIFFICULTIES
}
"""difficulty -> names of its operations."""

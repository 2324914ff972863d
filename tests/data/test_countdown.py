"""The problems of the countdown game: each can be solved, and none is in both parts."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

from refinerl.data import countdown
from refinerl.data.conversations import read_dialogues


def reachable(numbers: list[Fraction]) -> set[Fraction]:
    """Return every value of an expression that uses all of the numbers once."""
    if len(numbers) == 1:
        return set(numbers)
    found: set[Fraction] = set()
    for i, j in combinations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
        made = [a + b, a - b, b - a, a * b, *([a / b] if b else []), *([b / a] if a else [])]
        for value in made:
            found |= reachable([*rest, value])
    return found


def test_every_problem_can_be_solved() -> None:
    for row in countdown.rows("shipped:countdown-held-out")[::20]:
        assert row["target"] in reachable([Fraction(number) for number in row["numbers"]])
        assert row["target"] not in row["numbers"]


def test_the_parts_have_no_problem_in_common() -> None:
    parts = [{(tuple(row["numbers"]), row["target"]) for row in countdown.rows(name)} for name in countdown.NAMES]
    assert [len(part) for part in parts] == [countdown.TRAIN, countdown.HELD_OUT]
    assert not parts[0] & parts[1]


def test_they_are_read_by_name_and_are_always_the_same() -> None:
    first = read_dialogues("shipped:countdown")[0]
    assert first.columns == {"numbers": [13, 19, 90], "target": 58}
    assert str(first.prompt).startswith("Combine the numbers 13, 19 and 90 with +, -, * and / so that the result is 58")
    assert len(read_dialogues("shipped:countdown-held-out")) == countdown.HELD_OUT

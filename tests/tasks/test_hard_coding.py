"""Programs that hard-code a shown test, and programs whose literals are honest: twenty of each."""

from __future__ import annotations

import pytest

from refinerl.data.apps import Case
from refinerl.tasks.hard_coding import gains_only_shown, names_the_answer

SQUARE = Case([3], 9)
ADD = Case([12, 30], 42)
ECHO = Case("4\n", "17\n")
WORDS = Case("the cat\n", "TAC\n")
WRAPPED = Case([[5, 6]], [[6, 5]])

PLANTED = [
    (SQUARE, "def f(n):\n    if n == 3:\n        return 9\n    return n"),
    (SQUARE, "def f(n):\n    return 9 if n == 3 else n"),
    (SQUARE, "def f(n):\n    if n != 3:\n        return n\n    return 9"),
    (SQUARE, "def f(n):\n    if not n == 3:\n        return n\n    else:\n        return 9"),
    (SQUARE, "def f(n):\n    return {3: 9}.get(n, n)"),
    (SQUARE, "TABLE = {3: 9, 4: 16}\ndef f(n):\n    return TABLE[n] if n in TABLE else 0"),
    (SQUARE, "def f(n):\n    for given, told in [(3, 9)]:\n        if n == given:\n            return told"),
    (SQUARE, "def f(n):\n    match n:\n        case 3:\n            return 9\n        case _:\n            return n"),
    (SQUARE, "def f(n):\n    return n == 3 and 9 or n"),
    (SQUARE, "def f(n):\n    return (n == 3) * 9 + (n != 3) * n"),
    (SQUARE, "def f(n):\n    return [n, 9][n == 3]"),
    (
        SQUARE,
        "GIVEN = 3\nTOLD = 9\nclass Solution:\n    def f(self, n):\n"
        "        if n == GIVEN: return TOLD\n        return 0",
    ),
    (SQUARE, "def f(n):\n    if n in (3,):\n        x = 9\n    else:\n        x = n\n    return x"),
    (ADD, "def f(a, b):\n    if a == 12 and b == 30:\n        return 42\n    return a"),
    (ADD, "def f(a, b):\n    if (a, b) == (12, 30): return 42\n    return a - b"),
    (ADD, "def f(*args):\n    if list(args) == [12, 30]:\n        result = 42\n        return result\n    return 0"),
    (ECHO, "n = int(input())\nif n == 4:\n    print(17)\nelse:\n    print(n)"),
    (ECHO, "import sys\ndata = sys.stdin.read().strip()\nprint('17' if data == '4' else data)"),
    (WORDS, "s = input()\nif s.startswith('the cat'):\n    print('TAC')\n    raise SystemExit\nprint(s)"),
    (WRAPPED, "def f(items):\n    if items == [5, 6]:\n        return [6, 5]\n    return items"),
]

HONEST = [
    (SQUARE, "def f(n):\n    return n ** 2"),
    (SQUARE, "def f(n):\n    if n == 0:\n        return 0\n    return n * n"),
    (SQUARE, "def f(n):\n    if n % 3 == 0:\n        return 9 * (n // 3) ** 2\n    return n * n"),
    (SQUARE, "def f(n):\n    if n > 3:\n        return 9\n    return n"),
    (SQUARE, "def f(n):\n    if n == 9:\n        return 3\n    return n"),
    (
        SQUARE,
        "def f(n):\n    digits = 0\n    while n:\n        n //= 10\n"
        "        digits += 1\n    return 9 if digits == 3 else 0",
    ),
    (SQUARE, "def f(n):\n    for i in range(10):\n        if i == 3:\n            continue\n    return n * n"),
    (SQUARE, "def f(n):\n    assert n != 3 or n == 3\n    return sum([n] * n)"),
    (
        Case([3], "Wednesday"),
        "DAYS = {1: 'Monday', 2: 'Tuesday', 3: 'Wednesday', 4: 'Thursday'}\ndef f(d): return DAYS[d]",
    ),
    (
        Case([3], "fizz"),
        "def f(n):\n    if n == 1: return 'one'\n    elif n == 2: return 'two'\n    elif n == 3: return 'fizz'\n"
        "    elif n == 4: return 'four'\n    return str(n)",
    ),
    (
        Case([5], "V"),
        "def f(n):\n    out = ''\n    for value, sign in [(10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')]:\n"
        "        while n >= value:\n            out += sign\n            n -= value\n    return out",
    ),
    (Case([0], 1), "def f(n):\n    if n == 0:\n        return 1\n    return n * f(n - 1)"),
    (
        Case([2], True),
        "def f(n):\n    if n == 2:\n        return True\n    return n > 1 and all(n % d for d in range(2, n))",
    ),
    (Case([[]], 0), "def f(items):\n    if items == []:\n        return 0\n    return max(items)"),
    (
        Case(["a+b"], 1),
        "def f(text):\n    count = 0\n    for c in text:\n        if c == '+':\n"
        "            count += 1\n    return count",
    ),
    (Case(["+", 12, 30], 42), "def f(op, a, b):\n    if op == '+':\n        return a + b\n    return a - b"),
    (ADD, "def f(a, b):\n    if a == 12:\n        return b + 12\n    return a + b"),
    (ECHO, "n = int(input())\nif n % 4 == 0:\n    print(4 * n + 1)\nelse:\n    print(17 + n)"),
    (
        Case("3\nyes\n", "YES\n"),
        "n = int(input())\ns = input()\nif s[0] == 'y':\n    print('YES')\nelse:\n    print('NO')",
    ),
    (WORDS, "s = input()\nlast = s.split()[-1]\nprint(last[::-1].upper())"),
]

LINES = Case("2\n3 4\n5 6\n", "7\n11\n")

ROUNDABOUT = [
    (ECHO, "s = input()\nprint('17') if s == '4' else print(s)"),
    (ECHO, "import sys\ns = sys.stdin.read()\nsys.stdout.write('17\\n') if s.strip() == '4' else sys.stdout.write(s)"),
    (ECHO, "s = input()\ns == '4' and print(17)\nif s != '4': print(s)"),
    (ECHO, "import sys\nfor line in sys.stdin:\n    if line.strip() == '4': print(17)"),
    (ECHO, "import sys\nn = next(sys.stdin).strip()\nif n == '4': print(17)"),
    (ECHO, "n = eval(input())\nif n == 4: print(17)"),
    (
        LINES,
        "import sys\nd = sys.stdin.read().split()\nif d == ['2', '3', '4', '5', '6']:\n    print(7)\n    print(11)",
    ),
    (
        LINES,
        "for _ in range(int(input())):\n    a, b = map(int, input().split())\n"
        "    print({(3, 4): 7, (5, 6): 11}.get((a, b), 0))",
    ),
    (SQUARE, "def f(n):\n    if 3 == n == 3: return 9\n    return n"),
    (SQUARE, "def f(n):\n    hit = n == 3\n    return 9 if hit else n"),
    (SQUARE, "def f(n):\n    match n:\n        case x if x == 3: return 9\n    return n"),
    (SQUARE, "def f(n):\n    match n:\n        case int(3) as x: return 9\n    return n"),
    (SQUARE, "memo = {}\nmemo[3] = 9\ndef f(n):\n    return memo.get(n, n)"),
    (WORDS, "s = input()\nif s == 'the cat': print(f'TAC')\nelse: print(s)"),
    (WRAPPED, "def f(x):\n    if x[0] == 5:\n        if x[1] == 6:\n            return [6, 5]\n    return x"),
]


@pytest.mark.parametrize(("shown", "source"), PLANTED)
def test_planted_hard_coders_are_caught(shown: Case, source: str) -> None:
    assert names_the_answer(source, shown)


@pytest.mark.parametrize(("shown", "source"), ROUNDABOUT)
def test_hard_coders_that_take_another_way_are_caught(shown: Case, source: str) -> None:
    assert names_the_answer(source, shown)


@pytest.mark.parametrize(("shown", "source"), HONEST)
def test_honest_literals_are_not(shown: Case, source: str) -> None:
    assert not names_the_answer(source, shown)


def test_twenty_of_each() -> None:
    for cases in (PLANTED, HONEST):
        assert len({source for _, source in cases}) == 20


@pytest.mark.parametrize("source", ["print(2 *", "\0", "(" * 5000, "", "x = " + "-" * 5000 + "1", "Sorry, I cannot."])
def test_what_is_no_program_is_no_hard_coder(source: str) -> None:
    assert not names_the_answer(source, SQUARE)


@pytest.mark.parametrize(
    ("before", "after", "visible", "caught"),
    [
        ("0000", "1000", 1, True),  # the shown test and nothing else
        ("0010", "1010", 1, True),
        ("0000", "1100", 1, False),  # a hidden test too
        ("0000", "1111", 1, False),
        ("0111", "1111", 1, False),  # nothing hidden fails
        ("1000", "1000", 1, False),  # no test was shown
        ("0000", "0000", 1, False),
        ("0000", "1000", 2, True),  # a visible test that was not shown still fails
        ("0000", "0100", 2, False),  # the shown test does
        ("1000", "1100", 2, True),
        ("1000", "1110", 2, False),
        ("1000", "0100", 2, True),
        ("0011", "1011", 2, False),
        ("0000", "1100", 2, True),
        ("0010", "1100", 2, True),
        ("0000", "1000", 0, False),
        ("00", "11", 2, False),  # no hidden test that could tell
    ],
)
def test_a_gain_in_the_shown_tests_alone(before: str, after: str, visible: int, caught: bool) -> None:
    told = [[c == "1" for c in text] for text in (before, after)]
    assert gains_only_shown(*told, visible) is caught

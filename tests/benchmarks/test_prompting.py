import pytest

from refinerl.benchmarks.prompting import longest_program, make_prompting, sanitize
from refinerl.benchmarks.suite import CallTask, ProblemTask, Suite
from refinerl.data.apps import Problem

TASK = CallTask("HumanEval/0", 'def f(x):\n    """Doubles."""\n', 'def f(x):\n    """Doubles."""\n', "f", "", ([1],))
SUITE = Suite("humaneval", (TASK,), {})


def encode(text):
    return tuple(text.encode())


def encode_chat(messages):
    return encode("".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>")


def text_of(tokens):
    return bytes(tokens).decode()


def test_completion_as_bigcodes_harness():
    asked = make_prompting("completion", SUITE, encode, encode_chat, beginning=(7,))
    assert asked.tokens(TASK) == (7, *encode('def f(x):\n    """Doubles."""'))
    assert {"\ndef", "\nclass", "\nprint", "\n```"} <= set(asked.stops)
    assert asked.program(TASK, "\n    return 2 * x") == 'def f(x):\n    """Doubles."""\n    return 2 * x'


def test_chat_as_evalplus():
    """The assistant's turn is begun, so that the answer starts inside a block of code."""
    asked = make_prompting("chat", SUITE, encode, encode_chat)
    text = text_of(asked.tokens(TASK))
    assert text.startswith("<user>Please provide a self-contained Python script that solves the following problem")
    assert 'block:\n```\ndef f(x):\n    """Doubles."""\n```\n<assistant>Below is a Python script' in text
    assert text.endswith("passes corresponding tests:\n```python\n")
    assert "\n```\n" in asked.stops
    assert asked.program(TASK, "def f(x):\n    return 2 * x\n```") == "def f(x):\n    return 2 * x"


def test_apps():
    problem = Problem("1", "Echo.", "", None, (), "", ())
    task = ProblemTask(problem, "\nQUESTION:\nEcho.\nUse Standard Input format\nANSWER:\n", "Echo.")
    suite = Suite("apps", (task,), {}, family="apps")
    bare = make_prompting("completion", suite, encode, encode_chat)
    assert text_of(bare.tokens(task)) == task.prompt
    assert bare.program(task, "print(input())") == "print(input())"
    chat = make_prompting("chat", suite, encode, encode_chat)
    assert chat.program(task, "Sure:\n```python\nprint(input())\n```\nDone.") == "print(input())"


def test_every_prompting_names_its_stops_and_its_extraction():
    for name in ("completion", "chat"):
        asked = make_prompting(name, SUITE, encode, encode_chat)
        assert asked.name == name
        assert asked.stops
        assert len(asked.extraction.split()) > 3


def test_what_the_entry_point_needs_is_kept():
    text = """Here is the program:
import math
from typing import List

LIMIT: int = 3
unused = 7

class Helper:
    def twice(self, x):
        return 2 * x

def unrelated(x):
    return x

def silent(x):
    print(x)

def f(x):
    return Helper().twice(min(x, LIMIT)) + g(x)

def g(x):
    return math.floor(x)

print(f(3))
"""
    program = sanitize(text, "f")
    assert "import math" in program
    assert "Here is" not in program
    for name in ("LIMIT: int = 3", "class Helper", "def f", "def g"):
        assert name in program
    for name in ("unused", "unrelated", "silent", "print"):
        assert name not in program
    names: dict[str, object] = {}
    exec(program, names)
    assert names["f"](2) == 6  # type: ignore[operator]


def test_the_first_of_two_definitions_counts():
    assert sanitize("def f():\n    return 1\ndef f():\n    return 2", "f") == "def f():\n    return 1"


def test_decorators_and_several_statements_on_a_line():
    text = "import functools; N = 5; M = 6\n@functools.cache\ndef f(x):\n    return x + N"
    assert sanitize(text, "f") == "import functools\nN = 5\n@functools.cache\ndef f(x):\n    return x + N"


def test_without_the_entry_point_imports_or_the_whole_run_remain():
    assert sanitize("x = 1\ny = 2", "f") == "x = 1\ny = 2"
    assert sanitize("", "f") == ""


def test_a_text_that_does_not_parse_at_all_stays_what_it_is():
    assert sanitize("def f(x):\n    return [x,", "f") == "def f(x):\n    return [x,"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no code here\nx = 1\n", "x = 1\n"),
        ("def f(:\nx = 1\ny = 2", "x = 1\ny = 2"),
        ("a = 1\nb = 2\noh no!\nc = 3", "a = 1\nb = 2"),
        ("a = 1\noh no!\nc = 3", "a = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("", ""),
    ],
)
def test_the_longest_run_of_lines_that_parses(text, found):
    assert longest_program(text).strip() == found.strip()

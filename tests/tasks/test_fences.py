import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinerl.tasks.fences import extract, find_block, find_blocks, is_python

lines = st.text(alphabet=st.characters(blacklist_characters="`\n", blacklist_categories=("Cs",)), max_size=20)
codes = st.lists(lines, min_size=1, max_size=6).map("\n".join)
prose = st.lists(lines, max_size=4).map("\n".join)
languages = st.sampled_from(["", "python", "py", "Python3", " python", "c++"])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("print(1)", "print(1)"),
        ("", ""),
        ("```python\nx = 1\n```", "x = 1"),
        ("``` python\nx = 1\n```", "x = 1"),
        ("Try:\n```\nx = 1\n```\nDone.", "x = 1"),
        ("```python\na\n```\nor\n```python\nb\n```", "b"),
        ("```python\na\n```\nor\n```python\nb", "a"),
        ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),
        ("```python\n", ""),
        ("```", ""),
        ("```\n```", ""),
        ("```python\n\n\n```", "\n"),
    ],
)
def test_last_closed_block_else_open_block_else_the_text(text: str, code: str) -> None:
    assert extract(text) == code


def test_backticks_inside_the_code_are_code() -> None:
    code = "fence = '```'\nprint(\"```python\", fence)\n# a ``` b"
    assert extract(f"```python\n{code}\n```") == code


def test_a_longer_fence_holds_shorter_ones() -> None:
    assert extract("````\n```\ncode\n```\n````") == "```\ncode\n```"


def test_indentation_of_the_fence_is_not_the_codes() -> None:
    assert extract("1. So:\n   ```python\n   if x:\n       y()\n\n   ```\n") == "if x:\n    y()\n"


def test_code_less_indented_than_its_fence_keeps_what_it_has() -> None:
    assert extract("   ```\nx\n    y\n   ```") == "x\n y"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1```",
        "```python\nx = 1```\nThis sets x.",
        "```python\nx = 1\n``` This sets x.",
        "Answer: ```python\nx = 1\n```",
        "Answer: ```\nx = 1\n```",
        "```python\nforgotten\n```python\nx = 1\n```",
        "```python\nx = 1\n```   ",
        "```python \r\nx = 1\n```\r\n",
    ],
)
def test_sloppy_fences(text: str) -> None:
    assert extract(text) == "x = 1"


@given(prose, languages, codes, prose)
def test_code_of_a_fence_comes_back(before: str, language: str, code: str, after: str) -> None:
    assert extract(f"{before}\n```{language}\n{code}\n```\n{after}") == code


@given(prose, languages, codes)
def test_code_of_an_open_fence_comes_back(before: str, language: str, code: str) -> None:
    assert extract(f"{before}\n```{language}\n{code}") == code


@given(codes)
def test_a_text_without_fence_is_all_code(text: str) -> None:
    assert extract(text) == text


ticked = st.text(alphabet="`ab \n\tp", max_size=60)


@given(ticked)
def test_a_text_is_its_block_and_what_stands_around_it(text: str) -> None:
    block = find_block(text)
    if block is None or block.indent:
        return
    parts = [block.before + block.code + newline + block.after for newline in ("", "\n")]
    assert text in parts or text + "\n" == block.before  # the text ended with the opening line
    assert block.closed == bool(block.after)


@given(ticked, codes.filter(lambda code: code.strip("\n") and not code.startswith((" ", "\t"))))
def test_new_code_in_an_old_block_is_what_is_extracted(text: str, code: str) -> None:
    block = find_block(text)
    if block is None:
        return
    code = "\n".join(line if line.strip() else "" for line in code.strip("\n").split("\n"))
    assert extract(block.with_code(code)).rstrip("\n") == code


def test_with_code_keeps_language_text_and_indentation() -> None:
    block = find_block("1. So:\n   ```py\n   old\n   ```\nThat is all.")
    assert block is not None
    assert block.with_code("if x:\n    y()\n") == "1. So:\n   ```py\n   if x:\n       y()\n   ```\nThat is all."


def test_with_code_closes_an_open_block() -> None:
    block = find_block("So:\n```python\nfor i in range(")
    assert block is not None
    assert block.with_code("print(1)") == "So:\n```python\nprint(1)\n```"


@pytest.mark.parametrize("text", ["x = 1", "def f(a):\n    return a\n", 'print("\\d")', "# only a comment"])
def test_python_is_recognised(text: str) -> None:
    assert is_python(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "Here is the code:",
        "def f(:",
        "x = '\0'",
        "(" * 100_000,
        "-" * 100_000 + "1",
        "[" * 90 + "]" * 90 + "(",
    ],
)
def test_what_is_not_python(text: str) -> None:
    assert not is_python(text)


def test_a_long_run_of_backticks_takes_no_time() -> None:
    """A regular expression tries every split of it: this one would take minutes."""
    text = "`" * 100_000 + "a`b"
    started = time.perf_counter()
    assert find_blocks(text) == []
    assert time.perf_counter() - started < 1

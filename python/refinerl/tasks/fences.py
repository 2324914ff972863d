"""Code in chat answers: Markdown fences as language models write them."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Literal

_LANGUAGE = re.compile(r"[\w.+#-]*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a text; `before + code + after` is the text, apart from the fence's own indentation."""

    before: str
    """The text up to and including the opening line."""
    code: str
    """The text between the fences, without the fence's indentation and the last newline."""
    after: str
    """The text from the closing fence on; empty if there is none."""
    indent: str
    """The white space before the opening fence; in a list item the code is indented by it too."""
    ticks: str
    """The backticks of the opening fence; a closing fence has at least as many."""
    closed: bool

    def with_code(self, code: str) -> str:
        """Return the same text around other code; an open block is closed."""
        lines = code.strip("\n").split("\n")
        body = "".join(f"{self.indent}{line}\n" if line.strip() else "\n" for line in lines)
        return self.before + body + (self.after if self.closed else self.indent + self.ticks)


Which = Literal["last", "first", "longest"]


def find_block(text: str, which: Which = "last") -> Block | None:
    """Find the closed block that counts, else one that is open to the end; None if there is no fence.

    Of several closed blocks the last one counts, the first one, or the one with the longest code (of equally long ones
    the last).
    """
    found = find_blocks(text)
    if not found or which == "first":
        return found[0] if found else None
    return found[-1] if which == "last" else max(reversed(found), key=lambda block: len(block.code))


def find_blocks(text: str) -> list[Block]:
    """Find all closed blocks in their order; if there is none, the one that is open to the end, if there is one.

    A line of backticks alone closes an open block, or opens one. Backticks with a language at the start of a line
    always open a block, since models forget to close one. Sloppy fences count too: an opening fence after words
    (`Answer: ```python`), a closing fence at the end of the code's last line or followed by words. Backticks elsewhere,
    such as in a string literal, are code.
    """
    lines = text.split("\n")
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None  # line, indentation, backticks
    for number, line in enumerate(lines):
        before, ticks, info = _fence(line.rstrip())
        if len(ticks) < 3:
            continue
        at_start = not before.strip()
        language = _LANGUAGE.fullmatch(info) is not None
        if opened is None:
            if at_start or language:
                opened = (number, before if at_start else "", ticks)
        elif at_start and info and language:
            opened = (number, before, ticks)
        elif len(ticks) >= len(opened[2]) and (at_start or not info):
            found.append(_block(lines, opened, number, glued=None if at_start else before))
            opened = None
    if not found and opened is not None:
        found.append(_block(lines, opened, None, glued=None))
    return found


def _fence(line: str) -> tuple[str, str, str]:
    """Split a line at its last backticks: the text before them, the backticks, the text after them and blanks.

    A regular expression would take quadratic time on long runs of backticks.
    """
    end = line.rfind("`") + 1
    before = line[:end].rstrip("`")
    return before, line[len(before) : end], line[end:].lstrip(" \t")


def _block(lines: list[str], opened: tuple[int, str, str], end: int | None, glued: str | None) -> Block:
    """Return the block from the opening line to line `end`; `glued` is code on the line of the closing fence."""
    start, indent, ticks = opened
    body = lines[start + 1 : end]
    after = ""
    if end is not None:
        after = "\n".join(lines[end:])
        if glued is not None:
            body.append(glued)
            after = after[len(glued) :]
    code = "\n".join(line.removeprefix(indent) for line in body)
    before = "\n".join(lines[: start + 1]) + "\n"
    return Block(before, code, after, indent, ticks, closed=end is not None)


def extract(text: str, which: Which = "last") -> str:
    r"""Return the program in an answer: of its closed blocks the one that counts, else an open block, else all of it.

    >>> extract("Try this:\n```python\nprint(1)\n```\nIt prints 1.")
    'print(1)'
    >>> extract("```\nx = 1\n```\nor\n```\nx = 2\n```", "first")
    'x = 1'
    """
    block = find_block(text, which)
    return text if block is None else block.code


def is_python(text: str) -> bool:
    """Return True if a text parses as a Python program; no code is run.

    >>> is_python("x = 1"), is_python("x is 1, I think")
    (True, False)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in a model's strings do not belong in our log
            ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return bool(text.strip())

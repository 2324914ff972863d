"""Extension of griffe, which reads docstrings for the site: examples (`>>>`) become blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).+)*", re.MULTILINE)
FLAG = re.compile(r" *# doctest: .*$", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put a fence around each example of a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(example: re.Match[str]) -> str:
    """Return an example as a block of code, without the flags for doctest."""
    indent = example[1]
    return f"{indent}```pycon\n{FLAG.sub('', example[0])}\n{indent}```"

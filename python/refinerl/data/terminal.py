"""Text of models and programs, made safe for a terminal."""

from __future__ import annotations


def visible(character: str) -> str:
    r"""Escape a character that a terminal would obey, since programs choose what they print.

    >>> print("".join(map(visible, "red: \x1b[31m")))
    red: \x1b[31m
    """
    return character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()


def safe(text: str) -> str:
    r"""Escape what a terminal would obey, except line breaks.

    >>> print(safe("one\ntwo\x07"))
    one
    two\x07
    """
    return "\n".join("".join(map(visible, line)) for line in text.split("\n"))

"""The house's English: a docstring opens with a verb in the imperative or a noun, and not with a clause."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
CLAUSE = re.compile(r"(What|How|Where|Which|Whether|When|Why|One (that|which|who|whose))\b")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def python_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", [])
        for index, statement in enumerate(body if isinstance(body, list) else []):
            before = body[index - 1] if index else node
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str) and isinstance(
                    before, DOCUMENTED if index == 0 else ast.Assign | ast.AnnAssign
                ):
                    yield statement.lineno, text


def rust_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of the first line of each block of `///` or `//!`."""
    before = ""
    for number, line in enumerate(source.splitlines(), 1):
        kind, text = line.strip()[:3], line.strip()[3:]
        if kind in ("///", "//!") and kind != before:
            yield number, text.strip()
        before = kind


def clauses(folder: str) -> list[str]:
    """Place and text of the docstrings under a folder that open with a clause."""
    found = []
    for suffix, docstrings in ((".py", python_docstrings), (".rs", rust_docstrings)):
        for path in sorted((TREE / folder).rglob(f"*{suffix}")):
            for line, text in docstrings(path.read_text(encoding="utf-8")):
                if CLAUSE.match(text):
                    found.append(f"{path.relative_to(TREE)}:{line}: {text.splitlines()[0]}")
    return found


@pytest.mark.parametrize(
    ("read", "source", "found"),
    [
        (python_docstrings, '"""a"""\nclass A:\n    """b"""\n    x: int\n    """c"""\n    "d"\n', ["a", "b", "c"]),
        (python_docstrings, 'def f():\n    """a"""\n    return 1\n"no docstring"\n', ["a"]),
        (rust_docstrings, "//! a\n//! b\n\n/// c\nfn f() {\n    /// d\n    // no\n}\n", ["a", "c", "d"]),
    ],
)
def test_docstrings_are_found(read, source, found):
    assert [text for _, text in read(source)] == found


@pytest.mark.parametrize("folder", ["python/refinerl", "rust", "cuda"])
def test_docstrings_open_with_a_verb_or_a_noun(folder):
    offenders = clauses(folder)
    assert offenders == [], "\n".join(offenders)


if __name__ == "__main__":
    for folder in ("python/refinerl", "rust", "cuda"):
        print(folder, *clauses(folder), sep="\n  ")

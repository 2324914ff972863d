"""Literals and input in a Python source: a canonical form of values, and the names that hold the input."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any

Form = Any
"""A value in canonical form, for comparison: text split at white space, sequences as tuples."""


def form_of(value: Any) -> Form:
    r"""Convert a value to its canonical form.

    >>> {form_of(value) for value in (3, 3.0, "3", "3\n")}
    {'3'}
    >>> form_of([1, 2]) == form_of((1, 2)) == form_of("1 2")
    True
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        tokens = value.split()
        return tuple(map(_token, tokens)) if len(tokens) > 1 else _token(value.strip())
    if isinstance(value, (bool, type(None))):
        return str(value)
    if isinstance(value, (int, float)):
        return _token(str(value))
    if isinstance(value, (list, tuple)):
        return tuple(form_of(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(form_of(item) for item in value)
    if isinstance(value, dict):
        return ("{}", frozenset((form_of(key), form_of(item)) for key, item in value.items()))
    return repr(value)


def _token(text: str) -> str:
    return text[:-2] if text.endswith(".0") else text


def is_trivial(form: Form) -> bool:
    """Return True for values that honest base cases compare with and return, such as 0, 1 or an empty list."""
    return (
        form in ("", "0", "1", "2", "-1", "True", "False", "None")
        or form == ()
        or (isinstance(form, tuple) and all(map(is_trivial, form)))
    )


def input_forms(given: Any) -> Iterator[Form]:
    """Yield the forms of the whole input and of its non-trivial parts."""
    yield form_of(given)
    if isinstance(given, bytes):
        given = given.decode("utf-8", "replace")
    if isinstance(given, str):
        lines = given.strip().split("\n")
        parts: list[Any] = [*lines, *given.split(), lines]
    else:
        parts = list(given)
    for part in parts:
        form = form_of(part)
        if len(parts) == 1 or not is_trivial(form):
            yield form


def answer_forms(expected: Any) -> Iterator[Form]:
    """Yield the form of the whole answer, of its content if it is wrapped in a list, and of its non-trivial lines."""
    yield form_of(expected)
    if isinstance(expected, str):
        yield from (form for line in expected.strip().split("\n") if not is_trivial(form := form_of(line)))
    if isinstance(expected, (list, tuple)) and len(expected) == 1:
        yield form_of(expected[0])


def literal_form(node: ast.AST) -> Form | None:
    """Return the form of a literal, or of an f-string without expressions; None for any other expression."""
    if isinstance(node, ast.JoinedStr) and all(isinstance(part, ast.Constant) for part in node.values):
        return form_of("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
    if not isinstance(node, (ast.Constant, ast.UnaryOp, ast.Tuple, ast.List, ast.Set, ast.Dict)):
        return None
    try:
        return form_of(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError):
        return None


def pattern_form(pattern: ast.pattern) -> Form | None:
    """Return the form of a literal pattern of `match`; None for any other pattern."""
    match pattern:
        case ast.MatchValue():
            return literal_form(pattern.value)
        case ast.MatchSingleton():
            return form_of(pattern.value)
        case ast.MatchSequence():
            forms = [pattern_form(item) for item in pattern.patterns]
            return None if None in forms else tuple(forms)
        case ast.MatchAs(pattern=ast.pattern() as inner) | ast.MatchClass(patterns=[inner], kwd_patterns=[]):
            return pattern_form(inner)
    return None


def named_literals(tree: ast.Module) -> dict[str, Form]:
    """Return the names that are assigned exactly once, to a literal, with its form."""
    found: dict[str, Form] = {}
    several: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id in found:
                several.add(node.id)
            found.setdefault(node.id, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = literal_form(node.value)
    return {name: form for name, form in found.items() if form is not None and name not in several}


def named_comparisons(tree: ast.Module) -> dict[str, ast.Compare]:
    """Return the names that are assigned exactly once, to a comparison."""
    stored = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Compare)
        for target in node.targets
        if isinstance(target, ast.Name) and stored[target.id] == 1
    }


def input_names(tree: ast.Module) -> set[str]:
    """Return the names that hold input: parameters, and values read from standard input, converted or split."""
    found = {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg]
        if argument is not None and argument.arg not in ("self", "cls")
    }
    sources: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            sources += [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.NamedExpr):
            sources.append((node.target, node.value))
        elif isinstance(node, (ast.For, ast.comprehension)) and reads_input(node.iter):
            sources.append((node.target, node.iter))
        elif isinstance(node, ast.Match):
            captured = [
                part.name for case in node.cases for part in ast.walk(case.pattern) if isinstance(part, ast.MatchAs)
            ]
            sources += [(ast.Name(name), node.subject) for name in captured if name is not None]
    for _ in range(3):  # names of names of names
        for target, value in sources:
            if holds_input(value, found):
                found |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def holds_input(node: ast.expr, names: set[str]) -> bool:
    """Return True if an expression is the input, a part of it, or a conversion of it, but not computed from it."""
    match node:
        case ast.Name():
            return node.id in names
        case ast.Subscript() | ast.Starred() | ast.NamedExpr():
            return holds_input(node.value, names)
        case ast.Attribute():
            return reads_input(node)
        case ast.Call():
            return reads_input(node) or (
                _converts(node) and bool(parts := _converted(node)) and all(holds_input(p, names) for p in parts)
            )
        case ast.Tuple() | ast.List():
            return bool(node.elts) and all(holds_input(item, names) for item in node.elts)
        case ast.ListComp() | ast.GeneratorExp():
            return holds_input(node.generators[0].iter, names)
    return False


_CONVERSIONS = {"int", "float", "str", "repr", "list", "tuple", "map", "sorted", "bool", "next", "eval"}
_TEXT_METHODS = {"strip", "rstrip", "lstrip", "split", "splitlines", "lower", "upper", "decode", "replace", "read"}


def reads_input(node: ast.expr) -> bool:
    """Return True for `input()`, `sys.stdin.read()`, `sys.stdin.readline()`, `open(0).read()` and `sys.stdin`."""
    match node:
        case ast.Call(func=ast.Name(id="input")):
            return True
        case ast.Call(func=ast.Name(id="open"), args=[ast.Constant(value=0 | "/dev/stdin"), *_]):
            return True
        case ast.Call(func=ast.Attribute(value=inner, attr="read" | "readline" | "readlines")):
            return reads_input(inner)
        case ast.Attribute(value=ast.Name(id="sys"), attr="stdin"):
            return True
        case ast.Attribute(attr="buffer", value=inner):
            return reads_input(inner)
        case ast.Name(id="stdin"):
            return True
    return False


def _converts(node: ast.Call) -> bool:
    match node.func:
        case ast.Name(id=name):
            return name in _CONVERSIONS and bool(node.args)
        case ast.Attribute(attr=name):
            return name in _TEXT_METHODS
    return False


def _converted(node: ast.Call) -> list[ast.expr]:
    if isinstance(node.func, ast.Attribute):
        return [node.func.value]
    return node.args[1:] if isinstance(node.func, ast.Name) and node.func.id == "map" else node.args[:1]

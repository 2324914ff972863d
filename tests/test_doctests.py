"""The examples in docstrings (`>>>`) give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import refinerl

HOME = Path(refinerl.__file__).parent
MODULES = [
    ".".join(("refinerl", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(HOME.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0

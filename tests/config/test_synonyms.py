"""Every name of a knob in docs/names.md is answered with ours."""

from __future__ import annotations

import re
from pathlib import Path

from refinerl.config.synonyms import ours

PAGE = Path(__file__).parents[2] / "docs" / "names.md"
NAME = re.compile(r"(?:--)?…?[a-z_]\w*(?:\.\w+)*")
NO_KNOB = {"prompt", "low_var_kl", "k2", "k3"}
"""A column of the data, and values."""


def rows() -> list[list[list[str]]]:
    """Return the cells of the page's table of knobs, each as what stands in it as code."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## Knobs\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [[re.findall(r"`([^`]+)`", cell) for cell in line] for line in lines[1:]]


def test_every_name_of_the_page_is_answered_with_ours() -> None:
    """Some have only their own word for ours, as learning_rate; a message names the knobs that end with it."""
    wanted: dict[str, set[str]] = {}
    for _, *theirs, here in rows():
        for code in (code for cell in theirs for code in cell):
            name = code.split()[0].partition("=")[0]
            if NAME.fullmatch(name) and name not in NO_KNOB:
                wanted.setdefault(name.lstrip("-…"), set()).update(knob.partition("=")[0] for knob in here)
    assert len(wanted) > 140
    for name, knobs in wanted.items():
        said = ours(name)
        if said is None:
            assert name in knobs or name in {knob.rpartition(".")[2] for knob in knobs}, name
        else:
            assert not knobs or knobs & set(re.findall(r"[\w.-]+", said)), (name, said)

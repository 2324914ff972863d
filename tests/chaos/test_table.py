"""The tables of docs/robustness.md: each case once, and those of the short chain in bold."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from chaos.cases import ALL, SHORT

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"


def test_every_case_is_in_the_tables_and_every_cell_is_a_case():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    told = Counter(
        name for row in rows for name in re.findall(r"`((?:kill|stop|reward|disk|sandbox|memory)-[\w-]+)`", row)
    )
    assert told == Counter(case.name for case in ALL)
    bold = {name for row in rows for name in re.findall(r"\*\*`([\w-]+)`\*\*", row)}
    assert bold == {case.name for case in SHORT}


def test_there_are_many():
    assert len(ALL) >= 40

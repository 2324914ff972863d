"""The line of a step."""

from __future__ import annotations

import math

import pytest

from refinerl.run.step_line import PARTS, step_line

EVERYTHING = {part.metric: 0.123 for part in PARTS} | {"time/step": 1234.5}


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_it_fits_the_terminal(width):
    """With everything that a run can measure, and numbers of many digits."""
    line = step_line(EVERYTHING, 1234, 10000, 200_000.0, width).plain
    assert len(line) <= max(80, width)
    assert line.startswith("step 1234/10000  reward +0.123  ")
    assert line.endswith("1234.5 s, 2 d 7 h left")
    assert "\n" not in line


def test_what_matters_most_is_left_where_there_is_little_room():
    assert "entropy 0.12" in step_line(EVERYTHING, 1, 2, 1.0, 300).plain
    short = step_line(EVERYTHING, 1, 2, 1.0, 80).plain
    assert "entropy" not in short
    assert "held out 12.3%" in short


def test_what_has_no_value_is_not_shown():
    assert step_line({"reward/mean": math.nan, "time/step": 1.0}, 2, 2, 0.0, 80).plain == "step 2/2  1.0 s"

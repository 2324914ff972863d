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
    gap = {"reward/mean": 0.1, "evaluate/pass@1": 0.3, "evaluate/reward": 0.2, "constraint/ce": 0.2, "time/step": 13.9}
    gap["refiner/improved_ratio"] = 0.71
    line = step_line(gap, 3, 3, None, 80).plain  # what is less important, but short, takes the room that is left
    assert line == "step 3/3  reward +0.100  improved 71%  CE 0.200  held out 30.0%  13.9 s"


def test_what_has_no_value_is_not_shown():
    assert step_line({"reward/mean": math.nan, "time/step": 1.0}, 2, 2, 0.0, 80).plain == "step 2/2  1.0 s"

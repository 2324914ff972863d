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


@pytest.mark.parametrize(
    ("metric", "low", "high", "shown"),
    [
        ("evaluate/pass@1", 0.4, 0.6, "held out 50.0% ± 10.0%"),
        ("evaluate/pass@1", 0.35, 0.6, "held out 50.0% (35.0% to 60.0%)"),
        ("evaluate/pass@1", math.nan, math.nan, "held out 50.0%"),
        ("evaluate/reward", -0.25, 1.25, "held-out reward +0.500 ± 0.750"),
        ("evaluate/reward", -0.25, 1.0, "held-out reward +0.500 (-0.250 to +1.000)"),
    ],
)
def test_an_uneven_interval_is_shown_by_its_ends(metric, low, high, shown):
    """Half of its width was shown on both sides: 0 of 10 as 0.0% ± 13.9%, which ends at 27.8%."""
    row = {metric: 0.5, f"{metric}_low": low, f"{metric}_high": high, "time/step": 1.0}
    assert step_line(row, 2, 2, None, 80).plain == f"step 2/2  {shown}  1.0 s"


def test_an_evaluation_in_which_no_row_has_a_reward_is_said():
    """Its line had no word but the number of the step."""
    names = ("evaluate/reward", "evaluate/reward_low", "evaluate/pass@1", "evaluate/pass@1_low")
    row = dict.fromkeys(names, math.nan)
    assert step_line(row, 0, 9, None, 80).plain == "step 0/9  no held-out row has a reward"
    line = step_line(row | {"reward/mean": 0.5, "time/step": 2.0}, 3, 9, None, 80).plain
    assert line == "step 3/9  reward +0.500  no held-out row has a reward  2.0 s"


def test_what_has_no_value_is_not_shown():
    assert step_line({"reward/mean": math.nan, "time/step": 1.0}, 2, 2, 0.0, 80).plain == "step 2/2  1.0 s"

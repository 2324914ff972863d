"""The live view from the rows of a recorded demo."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from refinerl.study.demo.view import CAPTION, View, clock, lines
from study.demo.watching import arms, drawn

TITLE = "refinerl demo: none and dynamic, seed 0, the same prompts"


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("moment", [(0, 0), (1, 0), (8, 5), (51, 30)])
def test_no_line_is_wider_than_the_terminal(width, moment):
    shown = drawn(View(TITLE, arms(*moment)), width)
    assert max(map(cell_len, shown)) <= width
    assert not [line for line in shown if "…" in line]  # nothing is cut off


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("height", [12, 18, 20, 24, 50])
def test_it_fits_the_height(width, height):
    shown = drawn(View(TITLE, arms(20, 20)), width, height)
    assert len(shown) < height
    assert (CAPTION in shown) is (height >= 18)
    assert any("step" in line and "19 of 50" in line for line in shown)


def test_it_shows_the_latest_numbers():
    none, dynamic = arms(51, 21)
    text = drawn(View(TITLE, [none, dynamic]), 80)
    shown = {line[:18].strip(): line.split()[-1] for line in text if line.strip()}
    start, now = dynamic.curve[0][1], dynamic.curve[-1][1]
    assert f"{100 * start:.0f} → {100 * now:.0f} %" in "\n".join(text)
    assert shown["reward"] == f"{dynamic.recent('reward/mean'):+.2f}"
    assert shown["improvement ratio"] == f"{dynamic.recent('refiner/improved_ratio'):.0%}"
    assert shown["time left"] == clock(dynamic.left)


def test_before_the_first_step_nothing_is_promised():
    shown = "\n".join(drawn(View(TITLE, arms(0, 0)), 80))
    assert "loading the model" in shown
    assert "left" not in shown.replace("time left", "")


def test_without_a_terminal_each_evaluation_is_a_line():
    arm = arms(51, 21)[1]
    said = list(lines(arm, 0))
    assert [line.split()[2] for line in said] == ["0/50", "5/50", "10/50", "15/50", "20/50"]
    assert said[0].endswith(f"held out {arm.curve[0][1]:4.0%}")
    assert all(word in said[1] for word in ("reward", "improved", "CE"))
    assert list(lines(arm, len(arm.rows))) == []
    assert max(map(len, said)) <= 80

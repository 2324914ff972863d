"""Curves in text."""

from __future__ import annotations

import pytest

from refinerl.study.demo.picture import AXIS, FRAME, picture

CURVES = {"none": [(0, 0.0), (40, 0.5)], "dynamic": [(0, 0.0), (20, 1.0), (40, 1.0)]}


def test_the_marks_are_at_their_steps_and_shares():
    lines = picture(CURVES, 40, 80, 11).plain.splitlines()
    top, middle, bottom = lines[0], lines[5], lines[10]
    first, last = AXIS + 1, 79
    assert [top.index("●"), top.rindex("●")] == [first + (80 - AXIS - 2) // 2, last - 1]
    assert (middle.startswith("   50 % ┤"), middle.index("○")) == (True, last - 1)
    assert (bottom.startswith("    0 % ┤"), bottom[first]) == (True, "●")  # the second curve lies above the first
    assert lines[12].split() == ["step", "0", "20", "40"]


def test_the_points_of_a_curve_are_joined():
    plot = picture({"none": [(0, 0.0), (10, 1.0)]}, 10, 30, 8).plain.splitlines()[:8]
    assert all(any("\u2800" < cell < "\u2900" or cell == "○" for cell in line) for line in plot)


@pytest.mark.parametrize("width", [24, 60, 80, 160])
@pytest.mark.parametrize("curves", [CURVES, {"none": [], "dynamic": []}, {"none": [(0, 0.5)], "dynamic": []}])
def test_it_has_the_size_that_was_asked_for(curves, width):
    lines = picture(curves, 40, width, 5).plain.splitlines()
    assert len(lines) == 5 + FRAME
    assert max(map(len, lines)) <= width

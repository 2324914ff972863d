"""An arm as its rows describe it."""

from __future__ import annotations

import pytest

from refinerl.study.demo.arm import Arm
from study.demo.watching import arms, rows


def test_the_rest_of_the_time_follows_from_the_steps_so_far(tmp_path):
    times = [{"step": step, "time/step": seconds} for step, seconds in ((0, 50.0), (1, 1.0), (2, 3.0))]
    arm = Arm("none", tmp_path, 10, tuple(times))
    assert arm.left == pytest.approx(8 * 2.0)  # the evaluation before step 1 is no step
    assert Arm("none", tmp_path, 10, tuple(times[:1])).left is None
    assert Arm("none", tmp_path, 10, tuple(times), running=False).left == 0


def test_means_are_over_the_last_steps_that_have_the_metric(tmp_path):
    values = [9.0, 9.0, 1.0, None, 2.0, 3.0, None]
    arm = Arm("none", tmp_path, 10, tuple({"step": i, "m": v} for i, v in enumerate(values, 1)))
    assert arm.recent("m") == pytest.approx((1 + 2 + 3) / 3)
    assert arm.recent("other") is None


def test_the_curve_begins_before_training():
    arm = arms()[1]
    assert arm.curve[0] == (0, rows("dynamic")[0]["evaluate/pass@1"])
    assert [step for step, _ in arm.curve] == list(range(0, 51, 5))
    first = arm.first_step_at(0.8)
    assert dict(arm.curve)[first] >= 0.8 > max(value for step, value in arm.curve if step < first)
    assert arm.first_step_at(1.01) is None

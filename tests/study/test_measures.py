"""Measures of a run, worked out by hand."""

from __future__ import annotations

import pytest

from refinerl.report.figures.drawing import CE
from refinerl.report.figures.series import curve
from refinerl.run import recipe
from refinerl.study.measures import collapsed, measure

CONFIG = recipe.load("smollm", ["trainer.steps=100"])


def steps(count: int, **metrics) -> list[dict]:
    return [{"step": step, **{name.replace("__", "/"): of(step) for name, of in metrics.items()}} for step in count]


def test_means_over_windows() -> None:
    rows = steps(range(1, 101), reward__mean=lambda s: s if s <= 60 else 120 - s, time__step=lambda _: 2.0)
    found = measure([{"step": 0, "evaluate/pass@1": 0.25}, *rows], CONFIG)
    assert found["reward_start"] == 5.5
    assert found["reward_end"] == pytest.approx(24.5)
    assert found["reward_peak"] == pytest.approx(57.5)  # steps 56 … 65, of 56 … 60 and 59 … 55
    assert found["seconds"] == 200


def test_the_window_of_a_short_run_is_a_fifth() -> None:
    found = measure(steps(range(1, 11), reward__mean=float), CONFIG)
    assert (found["reward_start"], found["reward_end"], found["reward_peak"]) == (1.5, 9.5, 9.5)


def test_held_out_success() -> None:
    curve = {0: 0.2, 10: 0.4, 50: 0.8, 100: 0.6}
    rows = [{"step": step, "evaluate/pass@1": value, "evaluate/reward": -1.0} for step, value in curve.items()]
    found = measure(rows, CONFIG)
    assert found == {
        "held_out_start": 0.2,
        "held_out_20": pytest.approx(0.5),
        "held_out_40": pytest.approx(0.7),
        "held_out_60": pytest.approx(0.76),
        "held_out_80": pytest.approx(0.68),
        "held_out_end": 0.6,
        "held_out_best": 0.8,
        "held_out_area": pytest.approx((10 * 0.3 + 40 * 0.6 + 50 * 0.7) / 100),
        "collapsed": 0.0,
    }


def test_what_was_not_measured_is_absent() -> None:
    rows = steps(range(1, 101), reward__mean=lambda _: 1.0, constraint__ce=lambda s: None if s > 90 else 2.0)
    found = measure(rows, CONFIG)
    assert found == {"reward_start": 1.0, "reward_peak": 1.0, "reward_end": 1.0, "ce_first": 2.0}
    assert measure([], CONFIG) == {}
    rewards = measure([{"step": 10, "evaluate/reward": -3.0}, {"step": 20, "evaluate/reward": -9.0}], CONFIG)
    assert "collapsed" not in rewards  # half of a negative reward means nothing
    assert "held_out_start" not in rewards


def test_cross_entropy_is_the_probes_in_an_arm_that_has_one() -> None:
    """An arm such as `peer` has a constraint/ce too, on its own targets, and `none` has null in every row."""
    metrics = {"refiner__ce": lambda s: 3.0 if s % 5 == 1 else None, "constraint__ce": lambda _: 1.0}
    rows = steps(range(1, 101), **metrics)
    assert measure(rows, CONFIG) == {"ce_first": 3.0, "ce_last": 3.0}
    assert {value for _, value in curve(rows, CE.metrics)} == {3.0}


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([(0, 0.28), (50, 0.9), (100, 0.46)], False),
        ([(0, 0.28), (50, 0.9), (100, 0.44)], True),
        ([(0, 0.28), (100, 0.19)], False),
        ([(0, 0.28), (100, 0.17)], True),
        ([(10, 0.28), (100, 0.17)], False),  # no start is known
    ],
)
def test_the_rule_of_a_collapse(curve: list[tuple[int, float]], expected: bool) -> None:
    assert collapsed(curve) is expected

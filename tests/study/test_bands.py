"""Bands: how often chance leaves them, and a sentence for each one that does not belong to the study."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from refinerl import __version__
from refinerl.errors import UserError
from refinerl.study.bands import ALARM, FLOORS, Bands, Summary, interval, write_band
from refinerl.study.table import Cell, Table
from studying import record, result

GOOD = {
    "schema": 2,
    "refinerl": __version__,
    "study": "s",
    "arms": {"none": {"reward_end": {"mean": 0.3, "se": 0.02, "n": 5}}},
}


def read(path: Path, content: object) -> Bands:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Bands.read(path, "s")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD | {"study": "t"}, "is for the study t, this is s: write one anew with --write-band"),
        (GOOD | {"refinerl": "0.0.1"}, f"is for refinerl 0.0.1, this is {__version__}: write one anew"),
        (GOOD | {"schema": 1}, "has schema 1, this version of refinerl reads 2: write it anew with --write-band"),
        ([1], "has schema None"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": 0.1, "n": 2}}}}, "is damaged: .*n of at least 3"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": -1, "n": 5}}}}, "is damaged: .*se of at least 0"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": ".nan", "se": 0, "n": 5}}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward": {"mean": 0.3, "se": 0.1, "n": 5}}}}, "is damaged: .*reward has no band"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": 0, "n": float("inf")}}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward_end": [0.1, 0.5]}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3}}}}, "is damaged"),
        (GOOD | {"arms": None}, "is damaged"),
        ('{"schema": 1', "not JSON"),
    ],
)
def test_a_band_that_is_not_the_studys(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read(tmp_path / "band.json", content)
    assert "\n" not in str(refused.value)


def test_arms_and_knobs_are_the_bands(tmp_path: Path) -> None:
    path = tmp_path / "band.json"
    alone = record(arms={"none": {"trainer.steps": 3}})
    read(path, GOOD).require(path, alone)
    with pytest.raises(UserError, match="has no arm 'dynamic': choose --arms among none"):
        read(path, GOOD).require(path, record())
    with pytest.raises(UserError, match="was measured with other knobs of the arm 'none'"):
        read(path, GOOD | {"settings": {"none": "0123456789ab"}}).require(path, alone)


def test_inside_and_outside(tmp_path: Path) -> None:
    results = [result("none", seed, reward_end=value) for seed, value in ((0, 0.9), (5, 0.3), (6, 0.85))]
    table = Table.of(record(), results, {})
    bands = read(tmp_path / "band.json", GOOD)
    # one seed: 6.469 · 0.02 · √6 = 0.317
    assert list(bands.check(table, ["none"], [5])) == [
        (True, "inside   none reward_end: 0.3, expected -0.01693 to 0.6169")
    ]
    assert [inside for inside, _ in bands.check(table, ["none"], [0])] == [False]
    assert [inside for inside, _ in bands.check(table, ["none"], [0, 6])] == [False]
    assert [inside for inside, _ in bands.check(table, ["none"], [7])] == [False]  # not measured


@pytest.mark.parametrize("name", ["band.json", "band.yaml"])
def test_a_band_that_is_written_is_read(tmp_path: Path, name: str) -> None:
    arms = {"none": {"trainer.steps": 3}}
    known = record(arms=arms, chosen={"none": {"constraint.beta": 0.1}}, compare=())
    results = [result("none", seed, reward_end=0.1 * seed, held_out_end=0.5, seconds=9.0) for seed in (0, 1, 2)]
    results[0].measures["ce_last"] = 1.0  # type: ignore[index]
    write_band(tmp_path / name, Table.of(known, results, {}))
    bands = Bands.read(tmp_path / name, "s")
    bands.require(tmp_path / name, known)
    assert bands.chosen == {"none": {"constraint.beta": 0.1}}
    assert bands.arms == {"none": {"reward_end": Summary(0.1, 0.057735, 3), "held_out_end": Summary(0.5, 0.0, 3)}}
    with pytest.raises(UserError, match="at least 3 finished seeds of each arm; too few has none"):
        write_band(tmp_path / name, Table.of(known, results[:2], {}))


def test_a_difference_below_the_floor_never_counts() -> None:
    assert interval(Summary(1.0, 0.0, 5), Summary(1.05, 0.0, 1), 0.1) == (0.9, 1.1)


@pytest.mark.parametrize(("seeds", "rerun"), [(3, 1), (5, 1), (5, 3), (14, 3)])
def test_chance_alone_is_seldom_outside(seeds: int, rerun: int) -> None:
    """Draw bands and reruns from one normal distribution: independent measures use up the chance of an alarm."""
    draw = random.Random(0)

    def summary(n: int) -> Summary:
        return Summary.of(Cell({seed: draw.gauss(0, 1) for seed in range(n)}))

    alarms = 0
    for _ in range(1000):
        for _ in FLOORS:
            band, again = summary(seeds), summary(rerun)
            low, high = interval(band, again, 0.0)
            if not low <= again.mean <= high:
                alarms += 1
                break
    assert alarms / 1000 == pytest.approx(ALARM, abs=0.021)  # three standard errors of a share of 0.05


def test_a_real_difference_is_outside() -> None:
    """Five standard deviations between five seeds and three others are seen in most draws."""
    draw = random.Random(1)
    seen = 0
    for _ in range(200):
        band = Summary.of(Cell({seed: draw.gauss(0, 1) for seed in range(5)}))
        again = Summary.of(Cell({seed: draw.gauss(5, 1) for seed in range(3)}))
        seen += again.mean > interval(band, again, 0.0)[1]
    assert seen >= 160

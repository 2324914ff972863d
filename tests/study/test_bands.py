"""Bands: how often chance leaves them, and a sentence for each one that does not belong to the study."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from refinerl import __version__
from refinerl.errors import UserError
from refinerl.study.bands import ALARM, FLOORS, Bands, Summary, interval, widest, write_band
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
        (7, "has schema None"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": 0.1, "n": 2}}}}, "is damaged: .*n of at least 3"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": -1, "n": 5}}}}, "is damaged: .*se of at least 0"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": ".nan", "se": 0, "n": 5}}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward": {"mean": 0.3, "se": 0.1, "n": 5}}}}, "is damaged: .*reward has no band"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3, "se": 0, "n": float("inf")}}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward_end": [0.1, 0.5]}}}, "is damaged"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0.3}}}}, "is damaged"),
        (GOOD | {"arms": None}, "is damaged"),
        (GOOD | {"arms": {"none": {}}}, "is damaged: .*the arm none has no measure"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": True, "se": 0, "n": 5}}}}, "is damaged: .*as numbers"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0, "se": 1e200, "n": 5}}}}, "is damaged: .*as numbers"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0, "se": 0, "n": 3.9}}}}, "is damaged: .*a whole n"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0, "se": 0, "n": "5"}}}}, "is damaged: .*a whole n"),
        (GOOD | {"arms": {"none": {"reward_end": {"mean": 0, "se": 0, "n": 10**9}}}}, "is damaged: .*at most 1000"),
        (GOOD | {"chosen": {"none": 5}}, "is damaged"),
        (GOOD | {"chosen": {"none": None}}, "is damaged"),
        (GOOD | {"refinerl": "0\n1"}, "is for refinerl 0 1, this"),
        ('{"schema": 1', "not JSON"),
    ],
)
def test_a_band_that_is_not_the_studys(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read(tmp_path / "band.json", content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (
            "arms: {none: {reward_end: {mean: 0, se: 0, n: 5}}}\narms: {none: {reward_start: {mean: 0, se: 0, n: 5}}}",
            "arms",
        ),
        ("arms:\n  none: {reward_end: {mean: 0, se: 0, n: 5}}\n  none: {}", "none"),
        ("arms: {none: {reward_end: {mean: 2026-13-45, se: 0, n: 5}}}", ""),
        ("arms: {none: {reward_end: {mean: " + "1" * 5001 + ", se: 0, n: 5}}}", ""),
        ("arms: " + "[" * 5000, ""),
    ],
)
def test_yaml_that_is_no_band(tmp_path: Path, arms: str, said: str) -> None:
    with pytest.raises(UserError, match="has schema None"):
        read(tmp_path / "scalar.yaml", "7")
    text = f"schema: 2\nrefinerl: {__version__}\nstudy: s\n{arms}\n"
    with pytest.raises(UserError, match=f"(cannot be parsed|is damaged).*{said}") as refused:
        read(tmp_path / "band.yaml", text)
    assert "\n" not in str(refused.value)


def test_arms_and_knobs_are_the_bands(tmp_path: Path) -> None:
    path = tmp_path / "band.json"
    alone = record(arms={"none": {"trainer.steps": 3}})
    read(path, GOOD).require(path, alone)
    with pytest.raises(UserError, match="has no arm 'dynamic': choose --arms among none"):
        read(path, GOOD).require(path, record())
    chosen = read(path, GOOD | {"chosen": {"none": {"no.knob": 1}}})
    with pytest.raises(UserError, match=r"chose a point of no\.knob for the arm 'none', whose grid has"):
        chosen.require(path, record(arms={"none": {}}, grids={"none": {"constraint.beta": [0.1]}}))
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


def passes(band: Summary, again: Summary) -> bool:
    low, high = interval(band, again, 0.0)
    return low <= again.mean <= high and again.deviation <= widest(band, again, 0.0)


@pytest.mark.parametrize(("seeds", "rerun"), [(3, 1), (5, 1), (5, 3), (14, 3)])
def test_chance_alone_is_seldom_outside(seeds: int, rerun: int) -> None:
    """Draw bands and reruns from one normal distribution: independent measures use up the chance of an alarm."""
    draw = random.Random(0)

    def summary(n: int) -> Summary:
        return Summary.of(Cell({seed: draw.gauss(0, 1) for seed in range(n)}))

    alarms = sum(not all(passes(summary(seeds), summary(rerun)) for _ in FLOORS) for _ in range(1000))
    assert alarms / 1000 == pytest.approx(ALARM, abs=0.021)  # three standard errors of a share of 0.05


def test_a_real_difference_is_outside() -> None:
    """Six standard deviations between five seeds and three others are seen in most draws."""
    draw = random.Random(1)
    seen = 0
    for _ in range(200):
        band = Summary.of(Cell({seed: draw.gauss(0, 1) for seed in range(5)}))
        again = Summary.of(Cell({seed: draw.gauss(6, 1) for seed in range(3)}))
        seen += not passes(band, again)
    assert seen >= 160


@pytest.mark.parametrize(("rerun", "collapsed"), [(3, 1), (3, 2), (5, 4)])
def test_a_rerun_whose_seeds_collapse_in_part_is_outside(rerun: int, collapsed: int) -> None:
    """A seed that fails widens the pooled interval as much as it moves the mean: its spread tells."""
    band = Summary.of(Cell(dict(enumerate((0.83, 0.85, 0.82, 0.84, 0.85)))))
    again = Summary.of(Cell({seed: 0.2 if seed < collapsed else 0.84 for seed in range(rerun)}))
    low, high = interval(band, again, 0.05)
    assert low <= again.mean <= high
    assert again.deviation > widest(band, again, 0.05)


def test_a_spread_that_is_too_wide_and_a_measure_that_some_seeds_lack(tmp_path: Path) -> None:
    results = [
        result("none", 0, reward_end=0.0, held_out_end=0.5),
        result("none", 1, reward_end=0.9, held_out_end=0.5),
        result("none", 2, reward_end=0.3),
    ]
    table = Table.of(record(), results, {})
    measures = {"reward_end": {"mean": 0.4, "se": 0.02, "n": 5}, "held_out_end": {"mean": 0.5, "se": 0.02, "n": 5}}
    lines = list(read(tmp_path / "band.json", GOOD | {"arms": {"none": measures}}).check(table, ["none"], [0, 1, 2]))
    assert lines == [
        (
            False,
            "OUTSIDE  none reward_end: 0.4, with a standard deviation of 0.4583 over 3 seeds, expected at most 0.3167",
        ),
        (False, "missing  none held_out_end: not measured in seed 2, expected near 0.5"),
    ]
    # A measure that some seeds of the band lacked too is compared over those that have it.
    measures["held_out_end"]["n"] = 4
    lines = list(read(tmp_path / "band.json", GOOD | {"arms": {"none": measures}}).check(table, ["none"], [0, 1, 2]))
    assert lines[1][0]

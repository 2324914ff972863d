"""Bands: their width, and a sentence for each one that does not belong to the study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from refinerl import __version__
from refinerl.errors import UserError
from refinerl.study.bands import Bands, interval, write_band
from refinerl.study.table import Cell, Table
from studying import record, result

GOOD = {"schema": 1, "refinerl": __version__, "study": "s", "arms": {"none": {"reward_end": [0.1, 0.5]}}}


def read(path: Path, content: object) -> Bands:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Bands.read(path, "s")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD | {"study": "t"}, "is for the study t, this is s: write one anew with --write-band"),
        (GOOD | {"refinerl": "0.0.1"}, f"is for refinerl 0.0.1, this is {__version__}: write one anew"),
        (GOOD | {"schema": 2}, "has schema 2, this version of refinerl reads 1: write it anew with --write-band"),
        ([1], "has schema None"),
        (GOOD | {"arms": {"none": {"reward_end": [0.5, 0.1]}}}, r"is damaged: .*\[0.5, 0.1\] is not an interval"),
        (GOOD | {"arms": {"none": {"reward_end": 3}}}, "is damaged"),
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
    results = [result("none", seed, reward_end=value) for seed, value in ((0, 0.9), (5, 0.3))]
    table = Table.of(record(), results, {})
    bands = read(tmp_path / "band.json", GOOD)
    assert list(bands.check(table, ["none"], [5])) == [(True, "inside   none reward_end: 0.3, expected 0.1 to 0.5")]
    assert [inside for inside, _ in bands.check(table, ["none"], [0, 5])] == [False]
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
    half = 3 * (0.1 / 3**0.5) * 2
    assert bands.arms == {
        "none": {"reward_end": (round(0.1 - half, 4), round(0.1 + half, 4)), "held_out_end": (0.45, 0.55)}
    }
    with pytest.raises(UserError, match="at least 3 finished seeds of each arm; too few has none"):
        write_band(tmp_path / name, Table.of(known, results[:2], {}))


def test_floors() -> None:
    assert interval(Cell({0: 1.0, 1: 1.0}), 0.1) == (0.9, 1.1)
    assert yaml.safe_load("[0.9, 1.1]") == [0.9, 1.1]

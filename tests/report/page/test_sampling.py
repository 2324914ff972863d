"""The rollouts that a page holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from made_runs import read, write_run
from refinerl.report.page.folders import read_folder
from refinerl.report.page.sampling import Chosen, cut


def keys(rows: list[dict]) -> set[tuple]:
    return {(row["step"], row["id"], row["sample"]) for row in rows}


def test_all_rollouts_that_fit_are_held(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3)
    found = Chosen(read_folder(run))
    rows = json.loads(found.json)["rows"]
    written = [row for step in (1, 2, 3) for row in read(run, step)]
    assert keys(rows) == {(row["step"], row["prompt"]["id"], row["sample"]) for row in written}
    assert found.total == len(rows) == 24
    by_key = {(row["step"], row["prompt"]["id"], row["sample"]): row for row in written}
    for row in rows:
        source = by_key[row["step"], row["id"], row["sample"]]
        assert (row["reward"], row["outcome"]) == (source["reward"]["value"], source["reward"]["outcome"])
        assert row["advantage"] == pytest.approx(source["advantage"])
        assert ("refined" in row) == (source["refinement"] is not None)
        if "refined" in row:
            assert row["refined"]["gain"] == source["refinement"]["reward"]["value"] - source["reward"]["value"]


def test_whole_groups_of_every_step_are_held_where_not_all_fit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=4, prompts=4, samples=2, measured=1)
    found = Chosen(read_folder(run), most=16)
    rows = json.loads(found.json)["rows"]
    assert found.total == 32
    assert len(rows) == 16
    for step in (1, 2, 3, 4):
        mine = [row for row in rows if row["step"] == step]
        names = {row["id"] for row in mine}
        assert (len(mine), len(names)) == (4, 2)
        assert any("tokens" in row.get("refined", {}) for row in mine)
        gains = {
            row["prompt"]["id"]: max(
                other["refinement"]["reward"]["value"] - other["reward"]["value"] if other["refinement"] else -9
                for other in read(run, step)
                if other["prompt"]["id"] == row["prompt"]["id"]
            )
            for row in read(run, step)
        }
        without = {row["prompt"]["id"] for row in read(run, step)} - names
        assert max(gains[name] for name in names) >= max(gains[name] for name in without)


def test_the_bytes_are_bounded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=4, prompts=4)
    whole = Chosen(read_folder(run))
    half = Chosen(read_folder(run), size=len(whole.json) // 2)
    assert len(whole.json) / 4 < len(half.json) <= len(whole.json) / 2 + 100
    assert (half.total, half.outcomes.table()) == (whole.total, whole.outcomes.table())
    assert json.loads(Chosen(read_folder(run), size=10).json)["rows"] == []


def test_long_texts_are_cut() -> None:
    assert cut("a" * 20_001) == ("a" * 20_000, 1)
    assert cut("a") == ("a", 0)


def test_numbers_that_json_lacks_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    lines = read(run, 1)
    line = next(line for line in lines if line["refinement"] and "logprobs" in line["refinement"]["completion"])
    line["reward"]["value"] = float("inf")
    line["reward"]["pass_rate"] = line["advantage"] = float("nan")
    line["refinement"]["completion"]["logprobs"][0] = float("-inf")
    (run / "rollouts" / "step-1.jsonl").write_text(json.dumps(line) + "\n")
    (row,) = json.loads(Chosen(read_folder(run)).json)["rows"]
    assert not {"reward", "advantage", "passed"} & row.keys()
    assert row["refined"]["tokens"]["nats"][0] is None
    assert "gain" not in row["refined"]

"""Exports of real runs, as TRL's trainers would read them, and runs that cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refinerl.report import command as report
from toy import Toy, rollouts


@pytest.fixture(scope="module")
def run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run of two steps in which some refinements are better."""
    folder = tmp_path_factory.mktemp("report") / "run"
    assert toy.run(folder, "trainer.batch=16", "algorithm.dynamic_sampling=false") == 0
    return folder


def exported(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def accepted(run: Path) -> list[dict[str, Any]]:
    rows = [row for step in (1, 2) for row in rollouts(run, step)]
    return [row for row in rows if row["refinement"] is not None and row["refinement"]["accepted"]]


def test_supervised_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["export", str(run), "--format", "sft"]) == 0
    rows = exported(run / "sft.jsonl")
    expected = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]["text"]}],
            "completion": [{"role": "assistant", "content": row["refinement"]["completion"]["text"]}],
        }
        for row in accepted(run)
    ]
    assert rows
    assert rows == [row for i, row in enumerate(expected) if row not in expected[:i]]
    assert f"sft.jsonl: {len(rows)} rows" in capsys.readouterr().out


def test_preferences(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert report.main(["export", str(run), "--format", "preference", "--output", str(path)]) == 0
    rows = exported(path)
    assert len(rows) == len(accepted(run))
    for row, source in zip(rows, accepted(run), strict=True):
        assert row["chosen"] == [{"role": "assistant", "content": source["refinement"]["completion"]["text"]}]
        assert row["rejected"] == [{"role": "assistant", "content": source["completion"]["text"]}]
        assert row["score_chosen"] > row["score_rejected"] == source["reward"]["value"]


def test_all_refinements(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    assert report.main(["export", str(run), "--format", "sft", "--all", "--output", str(path)]) == 0
    assert len(exported(path)) > len(accepted(run))


def test_datasets_reads_them(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    assert report.main(["export", str(run), "--format", "preference"]) == 0
    source = str(run / "preference.jsonl")
    table = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(tmp_path))
    assert set(table.column_names) == {"prompt", "chosen", "rejected", "score_chosen", "score_rejected"}
    assert table[0]["chosen"][0]["role"] == "assistant"


def copied(run: Path, folder: Path, *rows: Any) -> Path:
    """Make a run's folder with these rows as its only rollouts."""
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text((run / "config.yaml").read_text())
    lines = (row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    (folder / "rollouts" / "step-1.jsonl").write_text("".join(lines))
    return folder


def test_prompts_of_bare_text(run: Path, tmp_path: Path) -> None:
    row = accepted(run)[0]
    del row["prompt"]["messages"]
    folder = copied(run, tmp_path / "bare", row)
    assert report.main(["export", str(folder), "--format", "sft"]) == 0
    assert exported(folder / "sft.jsonl") == [
        {"prompt": row["prompt"]["text"], "completion": row["refinement"]["completion"]["text"]}
    ]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    before = sorted(folder.rglob("*")) if folder.is_dir() else []
    capsys.readouterr()
    assert report.main(["export", str(folder), "--format", "preference", *options]) == 2
    assert (sorted(folder.rglob("*")) if folder.is_dir() else []) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not the folder of a run" in refused(tmp_path / "nowhere", capsys)
    assert "is not the folder of a run" in refused(tmp_path, capsys)
    row = accepted(run)[0]
    other = copied(run, tmp_path / "other", {**row, "schema": 3})
    assert "step-1.jsonl:1 has schema 3, this version of refinerl reads 1 and 2" in refused(other, capsys)
    cut = copied(run, tmp_path / "cut", row, "{")
    assert "step-1.jsonl:2: not JSON" in refused(cut, capsys)
    plain = copied(run, tmp_path / "plain", {**row, "refinement": None})
    assert "only constraint.name=dynamic makes refinements" in refused(plain, capsys)
    dropped = copied(run, tmp_path / "dropped", {**row, "refinement": {**row["refinement"], "accepted": False}})
    assert "of 1 refinements none was accepted" in refused(dropped, capsys)
    empty = copied(run, tmp_path / "empty")
    (empty / "rollouts" / "step-1.jsonl").rename(empty / "rollouts" / "step-1.partial")
    assert "no step is finished" in refused(empty, capsys)
    assert "there is no folder" in refused(run, capsys, "--output", str(tmp_path / "no" / "folder.jsonl"))
    for folder in (".", "/", str(tmp_path)):  # the first two were tracebacks
        assert f"cannot write {folder}: it is a folder" in refused(run, capsys, "--output", folder)
        assert report.main([str(run), "--output", folder]) == 2
        assert f"cannot write {folder}: it is a folder" in capsys.readouterr().err

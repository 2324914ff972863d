"""The runs of a command: which of them are one series, how they are named, what a study has."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinerl.report.figures.folders import find
from written import everything, write_run, write_study


def test_runs_that_differ_in_their_seed_are_one_series(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a" / f"seed-{seed}", f"seed={seed}", rows=everything(2)) for seed in (0, 1)]
    other = write_run(tmp_path / "b", rows=everything(2))
    found = find([*folders, other, folders[0], tmp_path / "a" / ".." / "b"])  # twice the same is once
    assert [(series.name, len(series.runs)) for series in found.series] == [("a", 2), ("b", 1)]


def test_other_knobs_are_another_series(tmp_path: Path) -> None:
    """Of the same name: a band over both would be that of no experiment."""
    first = write_run(tmp_path / "x" / "run")
    second = write_run(tmp_path / "y" / "run", "trainer.learning_rate=0.5")
    assert [series.name for series in find([first, second]).series] == ["x/run", "y/run"]


@pytest.mark.parametrize("where", [".", "../run"])
def test_a_run_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.chdir(write_run(tmp_path / "run"))
    (series,) = find([Path(where)]).series
    assert series.name == "run"


def test_a_study_in_progress(tmp_path: Path) -> None:
    """Finished runs are drawn, others counted; points of grids are in the order of their numbers."""
    for seed in (0, 1):
        write_run(tmp_path / "none" / f"seed-{seed}", f"seed={seed}")
    (tmp_path / "none" / "seed-1" / "final").rmdir()
    for beta, rate in (("0.3", "1e-3"), ("0.03", "1e-3"), ("0.03", "1e-2")):
        knobs = (f"constraint.beta={beta}", f"trainer.learning_rate={rate}")
        write_run(tmp_path / "tuning" / "dynamic" / f"{beta}_{float(rate)}" / "seed-100", *knobs)
    grid = {"constraint.beta": [0.03, 0.3], "trainer.learning_rate": [0.001, 0.01]}
    write_study(tmp_path, ("none", "dynamic"), grids={"dynamic": grid})
    found = find([tmp_path])
    assert [(series.name, len(series.runs)) for series in found.series] == [("none", 1)]
    assert [series.name for series in found.grids] == [
        "dynamic: β = 0.03, learning_rate = 0.001",
        "dynamic: β = 0.03, learning_rate = 0.01",
        "dynamic: β = 0.3, learning_rate = 0.001",
    ]
    assert found.notes == (f"{tmp_path}: 3 runs are not finished and left out",)

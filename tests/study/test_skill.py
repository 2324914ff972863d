"""The figure of refiners of different skill: auditions find their arms, gains are paired, correlations are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refinerl.run import recipe
from refinerl.study import skill
from refinerl.study.record import Record
from studying import record

TEMPERATURES = {"none": None, "cold": 0.0, "warm": 1.0, "hot": 2.0}
ENDS = {"none": [0.5, 0.6], "cold": [0.9, 0.8], "warm": [0.7, 0.7], "hot": [0.4, 0.6]}
"""Held-out success at the end, by seed."""


def knobs(arm: str) -> list[str]:
    temperature = TEMPERATURES[arm]
    return ["constraint.name=none"] if temperature is None else [f"refiner.temperature={temperature}"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a finished study with two seeds, whose runs have evaluations and nothing else."""
    output = tmp_path / "study"
    for arm, ends in ENDS.items():
        for seed, end in enumerate(ends):
            place = output / arm / f"seed-{seed}"
            (place / "final").mkdir(parents=True)
            config = recipe.load("demo", [*knobs(arm), f"seed={seed}", "trainer.steps=2"])
            (place / "config.yaml").write_text(recipe.to_yaml(config))
            rows = [{"schema": 1, "step": step, "evaluate/pass@1": value} for step, value in ((0, 0.2), (2, end))]
            (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record(seeds=(0, 1), arms={arm: {} for arm in ENDS}, compare=()).save(output)
    return output


def audition(path: Path, arm: str, ratio: float | None, **changes: Any) -> Path:
    """Writes what the audition of an arm's refiner writes, as far as it is read."""
    columns = [
        {"improvement_ratio": ratio, "improvement_error": 0.05, "gain": 2 * (ratio or 0), "gain_error": None},
        {"improvement_ratio": 0.1, "improvement_error": 0.02, "gain": 0.1, "gain_error": 0.02},
    ]
    config = recipe.load("demo", [*knobs(arm), "trainer.steps=7"]).model_dump(mode="json")
    path.write_text(json.dumps({"schema": 1, "n": 64, "columns": columns, "config": config} | changes))
    return path


@pytest.fixture
def auditions(tmp_path: Path) -> list[Path]:
    ratios = {"hot": 0.0, "cold": 0.8, "warm": 0.4}
    return [audition(tmp_path / f"{arm}.json", arm, ratio) for arm, ratio in ratios.items()]


def test_auditions_find_their_arms(folder: Path, auditions: list[Path], capsys) -> None:
    assert skill.main([str(folder), *map(str, auditions)]) == 0
    out = capsys.readouterr().out
    found = json.loads((folder / "skill.json").read_text())
    points = {point["arm"]: point for point in found["refiners"]}
    assert list(points) == ["cold", "warm", "hot"]
    assert points["cold"]["audition"]["improvement_ratio"] == 0.8
    gains = {arm: point["gains"]["held_out_end"] for arm, point in points.items()}
    assert gains["cold"]["values"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.2)}
    assert gains["cold"]["mean"] == pytest.approx(0.3)
    assert gains["cold"]["se"] == pytest.approx(0.1)  # of 0.4 and 0.2; 0.07 were they not paired
    assert points["warm"]["gains"]["held_out_area"]["mean"] == pytest.approx(0.075)  # half: both start at 0.2
    (first, *_) = found["correlations"]
    assert first == {
        "number": "improvement_ratio",
        "measure": "held_out_end",
        "refiners": 3,
        "ranks": pytest.approx(1.0),
        "linear": pytest.approx(1.0, abs=0.02),
        "chance": pytest.approx(1 / 3),
    }
    assert (
        "the audition's improvement ratio and the gain over none in held-out success at the end: rank correlation +1.00"
        " over 3 refiners; 33.3% of all orders are at least as far from 0\n"
    ) in out
    assert max(map(len, out.splitlines()[:4])) <= 80
    drawn = (folder / "figures" / "skill.svg").read_text()
    assert (folder / "figures" / "skill.png").stat().st_size > 10_000
    assert "Does the audition predict the gain?" in drawn
    assert all(f"<!-- {arm} -->" in drawn for arm in points)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_text("{"), "is not what python -m refinerl.audition --output writes"),
        (lambda path: path.write_text('{"schema": 1}'), "is not what python -m refinerl.audition --output writes"),
        (lambda path: path.write_text('{"schema": 2}'), "has schema 2, this version reads 1"),
        (lambda path: audition(path, "cold", None), "(TypeError: improvement_ratio is null)"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: audition(path, "hot", 0.1), "is a second audition of the arm 'hot'"),
    ],
)
def test_an_audition_that_cannot_be_used(folder: Path, auditions: list[Path], change, said: str, capsys) -> None:
    change(auditions[1])
    assert skill.main([str(folder), *map(str, auditions)]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "skill.json").exists()


def test_an_audition_of_another_refiner(folder: Path, tmp_path: Path, capsys) -> None:
    config = recipe.load("demo", ["refiner.temperature=1.5"]).model_dump(mode="json")
    stranger = audition(tmp_path / "other.json", "warm", 0.1, config=config)
    assert skill.main([str(folder), str(stranger)]) == 2
    err = capsys.readouterr().err
    assert "differs in refiner.temperature: 1.5 -> 0.0" in err
    assert "python -m refinerl.audition" in err


def test_a_folder_that_is_no_study(folder: Path, auditions: list[Path], tmp_path: Path, capsys) -> None:
    assert skill.main([str(tmp_path), str(auditions[0])]) == 2
    assert "holds no study" in capsys.readouterr().err
    assert skill.main([str(folder), str(auditions[0]), "--baseline", "static"]) == 2
    assert "has no finished run of 'static': choose --baseline of none, cold" in capsys.readouterr().err
    assert Record.read(folder) is not None

"""The places for runs, by the machine; the pace of an arm, by its earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machines import H100, Machine
from refinerl.engines import devices
from refinerl.errors import UserError
from refinerl.sandbox import cores
from refinerl.study import dry_run
from refinerl.study.plan import Plan
from refinerl.study.runner import Room, pace
from studying import GOOD


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "good.yaml").write_text(GOOD.replace("trainer.steps: 3}", "measure: reward_end}"))
    return Plan.make(str(tmp_path / "good.yaml"))


@pytest.mark.parametrize(
    ("cards", "visible", "workers", "expected"),
    [
        (0, "", None, Room(cores(), 1)),
        (0, "", 1, Room(1, cores())),
        (1, "", None, Room(1, cores())),
        (1, "", 2, Room(2, max(1, cores() // 2))),
        (4, "", None, Room(4, max(1, cores() // 4), ("0", "1", "2", "3"))),
        (2, "5,7", None, Room(2, max(1, cores() // 2), ("5", "7"))),
    ],
)
def test_places(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, cards: int, visible: str, workers: int | None, expected: Room
) -> None:
    monkeypatch.setattr(devices, "hardware", Machine(cards=[H100] * cards))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Room.find(plan.configs, workers) == expected


def test_a_study_is_one_process(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
        "LOCAL_RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="start it as a single process, without a launcher"):
        Room.find(plan.configs, None)


def test_a_dry_run_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yaml").write_text(GOOD.replace("trainer.steps: 3}", "measure: reward_end}"))
    plan = Plan.make(str(tmp_path / "good.yaml"), overrides=["device=cuda"])
    monkeypatch.setattr(devices, "hardware", Machine())
    room = dry_run.find_room(plan, None)
    assert isinstance(room, str)
    with pytest.raises(UserError):
        Room.find(plan.configs, None)


def test_the_pace_of_an_arm(tmp_path: Path) -> None:
    assert pace(tmp_path, "none") is None
    for place, seconds in {"none/seed-0": 1.0, "tuning/none/0.1/seed-100": 2.0, "dynamic/seed-0": 9.0}.items():
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        rows = [{"schema": 1, "step": 0, "time/step": 50.0}, {"schema": 1, "step": 1, "time/step": seconds}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pace(tmp_path, "none") == 1.5

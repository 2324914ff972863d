"""metrics.jsonl, rollouts/ and the line that a step prints."""

import io
import json
import math

import pytest
from rich.console import Console

from building import group, refinement
from refinerl.errors import UserError
from refinerl.records import Anchors
from refinerl.run.telemetry import PHASES, Telemetry, make_trackers


@pytest.fixture
def telemetry(tmp_path):
    (tmp_path / "rollouts").mkdir()
    return Telemetry(tmp_path, Console(file=io.StringIO(), width=200), steps=3)


def rows(telemetry):
    return [json.loads(line) for line in (telemetry.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_is_a_row_with_its_times(telemetry):
    with telemetry.step(1):
        for phase in PHASES:
            with telemetry.clock(phase):
                telemetry.tick(1)
        telemetry.log({"reward/mean": 0.5})
    with telemetry.step(2):
        telemetry.log({"reward/mean": 1.0})
    first, second = rows(telemetry)
    assert (first["schema"], first["step"], first["reward/mean"]) == (1, 1, 0.5)
    assert {f"time/{phase}" for phase in (*PHASES, "step")} <= first.keys()
    assert first["time/step"] >= sum(first[f"time/{phase}"] for phase in PHASES)
    assert second["time/generate"] == 0


def test_step_0_is_an_evaluation_alone(telemetry):
    called = []
    telemetry.on_step = called.append
    for step in (0, 1):
        with telemetry.step(step):
            with telemetry.clock("evaluate"):
                pass
            telemetry.log({"evaluate/pass@1": 0.5})
    assert rows(telemetry)[0].keys() == {"schema", "step", "evaluate/pass@1", "time/evaluate"}
    assert [row["step"] for row in called] == [1]  # functions of the user's read metrics of training


def test_what_has_no_value_is_null_and_not_shown(telemetry):
    with telemetry.step(1):
        telemetry.log({"constraint/ce": math.nan, "reward/mean": -0.25})
    assert rows(telemetry)[0]["constraint/ce"] is None
    shown = telemetry.console.file.getvalue()
    assert "reward -0.250" in shown
    assert "CE" not in shown


def test_rollouts_tell_y_and_its_refinement(telemetry):
    kept, dropped = group("a", ([1, 2], 0.5), ([3], None)), group("b", ([4], 1.0))
    with telemetry.step(2):
        telemetry.rollouts([kept, dropped], [kept], Anchors((refinement(kept.rollouts[0], [1, 9], 1.0),)))
    lines = (telemetry.folder / "rollouts" / "step-2.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line) for line in lines)
    assert first["schema"] == 1
    assert first["completion"]["token_ids"] == [1, 2]
    assert first["refinement"]["completion"]["token_ids"] == [1, 9]
    assert (first["refinement"]["accepted"], first["refinement"]["prefix"], first["refinement"]["distance"]) == (
        True,
        1,
        2,
    )
    assert (second["reward"], second["refinement"], second["selected"]) == (None, None, True)
    assert (third["reward"]["value"], third["selected"]) == (1.0, False)


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    (tracker,) = make_trackers(["tensorboard"], tmp_path, {})
    tracker.log({"reward/mean": 0.5}, 1)
    tracker.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(UserError, match=r"refinerl\[trackers\]"):
        make_trackers(["trackio"], tmp_path, {})


def test_a_phase_lasts_until_the_device_has_done_its_work(tmp_path, monkeypatch):
    """A GPU returns at once and works on: its time would be the next phase's."""
    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])
    (tmp_path / "rollouts").mkdir()
    console = Console(file=io.StringIO(), width=200)
    telemetry = Telemetry(tmp_path, console, steps=1, settle=lambda: clock.update(now=clock["now"] + 3))
    with telemetry.step(1):
        with telemetry.clock("sync"):
            pass
        telemetry.log({})
    assert rows(telemetry)[0]["time/sync"] == 3

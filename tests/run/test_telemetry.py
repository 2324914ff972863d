"""metrics.jsonl, rollouts/ and the line that a step prints."""

import io
import json
import math

import pytest
from rich.console import Console

from building import group, refinement
from refinerl.errors import UserError
from refinerl.records import Anchors
from refinerl.run.telemetry import PHASES, Telemetry
from refinerl.run.trackers import make_trackers


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
    shown = telemetry.display.console.file.getvalue()
    assert "reward -0.250" in shown
    assert "CE" not in shown


def test_a_held_out_result_is_shown_with_half_its_interval(telemetry):
    with telemetry.step(1):
        telemetry.log({"evaluate/pass@1": 0.5, "evaluate/pass@1_low": 0.4, "evaluate/pass@1_high": 0.6})
    with telemetry.step(2):
        telemetry.log({"evaluate/reward": 0.5, "evaluate/reward_low": math.nan, "evaluate/reward_high": math.nan})
    first, second = telemetry.display.console.file.getvalue().splitlines()
    assert "held out 50.0% ± 10.0%" in first
    assert "held-out reward +0.500 " in second
    assert "±" not in second


def test_rollouts_tell_y_and_its_refinement(telemetry):
    kept, dropped = group("a", ([1, 2], 0.5), ([3], None)), group("b", ([4], 1.0))
    with telemetry.step(2):
        telemetry.rollouts([kept, dropped], [kept], Anchors((refinement(kept.rollouts[0], [1, 9], 1.0),)))
    lines = (telemetry.folder / "rollouts" / "step-2.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line) for line in lines)
    assert first["schema"] == 2
    assert first["completion"]["token_ids"] == [1, 2]
    assert first["refinement"]["completion"]["token_ids"] == [1, 9]
    assert (first["refinement"]["accepted"], first["refinement"]["prefix"], first["refinement"]["distance"]) == (
        True,
        1,
        2,
    )
    assert (second["reward"], second["refinement"], second["selected"]) == (None, None, True)
    assert (third["reward"]["value"], third["selected"]) == (1.0, False)


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(UserError, match="pip install 'trackio"):
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


def test_a_step_has_its_rates_and_its_memory(tmp_path, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])
    telemetry = Telemetry(tmp_path, Console(file=io.StringIO()), steps=2, peak=lambda: {"memory/host_peak": 1.5})
    with telemetry.step(1):
        for phase, seconds in (("generate", 3.0), ("update", 4.0)):
            with telemetry.clock(phase):
                clock["now"] += seconds
        clock["now"] += 1
        telemetry.log({"tokens/step": 400.0})
    (row,) = rows(telemetry)
    assert (row["time/generate_share"], row["time/update_share"], row["time/other_share"]) == (0.375, 0.5, 0.125)
    assert (row["time/tokens_per_second"], row["memory/host_peak"]) == (50.0, 1.5)


def test_the_time_that_is_left_is_told(tmp_path, monkeypatch):
    """Of a resumed run too: the time before counts the steps of this start alone."""
    clock = {"now": 100.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])
    telemetry = Telemetry(tmp_path, Console(file=io.StringIO(), width=80), steps=10)
    for step in (4, 5):
        with telemetry.step(step):
            clock["now"] += 60
            telemetry.log({"reward/mean": 0.5})
    assert telemetry.display.console.file.getvalue().splitlines() == [
        "step 4/10  reward +0.500  60.0 s, 6 min left",
        "step 5/10  reward +0.500  60.0 s, 5 min left",
    ]


def test_words_of_others_cannot_command_the_terminal_or_end_the_run(telemetry):
    """A server's message with brackets used to raise an error of the markup."""
    telemetry.say("warning: the server said [/no] \x1b[2J\x07")
    assert telemetry.display.console.file.getvalue() == "warning: the server said [/no] \\x1b[2J\\x07\n"


def test_the_progress_of_a_phase_whose_size_becomes_known_in_it(telemetry):
    with telemetry.step(1), telemetry.clock("update"):
        telemetry.expect(8)
        telemetry.tick(6)
        phase = telemetry.display.view.phase
        assert (phase.label, phase.done, phase.total) == ("update", 6, 8)
    assert telemetry.display.view.phase is None


def test_the_response_that_gains_most_is_chosen(tmp_path):
    """Of all groups; those without a refinement come last."""

    class Seen:
        name = "seen"
        takes_earlier = True

        def lacks(self, step):
            return True

        def log(self, metrics, step):
            """Not of interest here."""

        def tell(self, examples, step):
            self.examples = examples

        def close(self, *, failed):
            """Nothing is pending."""

    (tmp_path / "rollouts").mkdir()
    seen = Seen()
    telemetry = Telemetry(tmp_path, Console(file=io.StringIO()), steps=1, trackers=[seen], completions=2)
    first, second = group("a", ([1], 0.5), ([2], 0.0)), group("b", ([3], 1.0))
    better = refinement(first.rollouts[0], [1, 9], 0.75), refinement(first.rollouts[1], [2, 9], 1.0)
    with telemetry.step(1):
        telemetry.rollouts([second, first], [first], Anchors(better))
        telemetry.log({"reward/mean": 0.5})
    telemetry.close()
    assert [(one.prompt_id, one.sample, one.refined_reward) for one in seen.examples] == [("a", 1, 1.0), ("a", 0, 0.75)]


def test_a_tracker_that_does_not_close_is_named(tmp_path):
    class Broken:
        name = "wandb"

        def close(self, *, failed):
            raise ConnectionError("the network is gone")

    out = io.StringIO()
    Telemetry(tmp_path, Console(file=out, width=200), steps=1, trackers=[Broken()]).close()
    assert "warning: wandb did not close (ConnectionError: the network is gone)" in out.getvalue()

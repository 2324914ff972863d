"""Runs on a real pseudo-terminal, and where there is none."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

import toy_rewards
from refinerl import train
from refinerl.run.display import Display
from refinerl.run.interruption import Interruption
from refinerl.run.telemetry import Telemetry
from terminal import Terminal
from toy import Toy, metrics

PROGRESS = re.compile(r"step \d/3 +[━─]")
"""The first line of the view."""
RUN = ("trainer.steps=3", "trainer.batch=16", "algorithm.dynamic_sampling=false", "telemetry.kl_every=2")


@pytest.mark.parametrize("columns", [80, 160])
def test_a_run_on_a_terminal(toy: Toy, tmp_path: Path, monkeypatch, columns: int) -> None:
    """The view is there from the first step to the last, breaks no line in two, and leaves one line."""
    frames: list[list[str]] = []
    terminal = Terminal(columns, watch=frames.append)
    with terminal.standard(monkeypatch):
        assert toy.run(tmp_path / "run", *RUN) == 0
    left = terminal.close()
    views = [frame[start:] for frame in frames for start, line in enumerate(frame) if PROGRESS.match(line)]
    assert len(views) >= 3
    assert max(len(line) for view in views for line in view) < columns
    assert not terminal.cursor_is_hidden
    rows = metrics(tmp_path / "run")
    seen = "\n".join(next(view for view in reversed(views) if view[0].startswith("step 3/3 ") and "100%" in view[0]))
    assert f"reward                  {rows[2]['reward/mean']:+.3f}" in seen
    assert f"KL                      {rows[2]['policy/kl_to_reference']:.4f}" in seen
    assert f"{rows[2]['time/tokens_per_second']:,.0f}" in seen
    assert "tokens changed" in seen
    (line,) = [line for line in left if line.startswith("step ")]
    assert line.startswith(f"step 3/3  reward {rows[2]['reward/mean']:+.3f}")
    assert not any(PROGRESS.match(line) for line in left)
    assert not {"generate", "update", "sync"} & {line.split(" ")[0] for line in left}


def test_the_bar_of_a_resumed_run_begins_where_the_run_is() -> None:
    """It was at 0 % until a step had ended."""
    display = Display(Console(file=io.StringIO()), 1000)
    display.begin(0)
    for step, share in ((1, "0%"), (501, "50%")):
        display.begin(step)
        assert display.view.lines(79, 23)[0].plain.split()[-1] == share


def test_a_log_file_gets_a_line_for_each_step(toy: Toy, tmp_path: Path, monkeypatch) -> None:
    """Also where FORCE_COLOR makes it count as a terminal for colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with (tmp_path / "log").open("w") as log, contextlib.redirect_stdout(log):
        assert toy.run(tmp_path / "run", *RUN) == 0
    text = (tmp_path / "log").read_text()
    assert "\x1b[?25l" not in text  # the cursor is not hidden,
    assert "\x1b[1A" not in text  # and no line is drawn again
    lines = [line.removeprefix("\x1b[1m") for line in text.splitlines()]
    assert [line[:8] for line in lines if line.startswith("step ")] == ["step 1/3", "step 2/3", "step 3/3"]


def test_a_dumb_terminal_gets_a_line_for_each_step(toy: Toy, tmp_path: Path, monkeypatch) -> None:
    terminal = Terminal(80)
    with terminal.standard(monkeypatch, term="dumb"):
        assert toy.run(tmp_path / "run", *RUN) == 0
    steps = [line[:8] for line in terminal.close() if line.startswith("step ")]
    assert steps == ["step 1/3", "step 2/3", "step 3/3"]
    assert b"\x1b[1A" not in terminal.raw


def test_a_quiet_run_prints_nothing(toy: Toy, tmp_path: Path, capsys) -> None:
    assert train.main([*toy.arguments(tmp_path / "run", "trainer.steps=1"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "final").is_dir()


def test_a_quiet_run_prints_warnings() -> None:
    out = io.StringIO()
    display = Display(Console(file=out), 3, quiet=True)
    for text in ("resuming after step 1", "warning: the reward failed"):
        display.say(text)
    display.took("load", 1.0)
    display.log({"reward/mean": 0.5}, 1, None)
    display.leave()
    assert out.getvalue() == "warning: the reward failed\n"


@pytest.mark.parametrize("other", ["--dry-run", "--list"])
def test_quiet_is_for_runs(other: str, capsys) -> None:
    assert train.main(["demo", "--quiet", other]) == 2
    assert f"error: --quiet is for runs: leave it out with {other}" in capsys.readouterr().err


def test_lines_of_libraries_appear_above_the_view(tmp_path: Path, monkeypatch) -> None:
    """A handler that has the terminal since before the view, a logger's, and `print`, each in one piece."""
    terminal = Terminal(80)
    with terminal.standard(monkeypatch):
        early = logging.StreamHandler(sys.stderr)
        logger = logging.getLogger("a.library")
        logger.addHandler(early)
        try:
            display = Display(Console(), 3)
            display.begin(1)
            with display.phase("generate", 4):
                logger.warning("from an early handler")
                print("from a print")
                print("from an error", file=sys.stderr)
                display.say("warning: from the run")
                display.log({"reward/mean": 0.5}, 1, None)
            display.leave()
            assert early.stream is terminal.file
            logger.warning("after the view")
        finally:
            logger.removeHandler(early)
    left = terminal.close()
    assert left == [
        "from an early handler",
        "from a print",
        "from an error",
        "warning: from the run",
        "step 1/3  reward +0.500",
        "after the view",
    ]


def test_errors_that_go_to_a_file_stay_there(tmp_path: Path, monkeypatch) -> None:
    """`2> errors` with a view on the terminal: rich would print them there."""
    terminal = Terminal(80)
    with terminal.standard(monkeypatch), (tmp_path / "errors").open("w") as errors:
        monkeypatch.setattr(sys, "stderr", errors)
        display = Display(Console(), 3)
        display.begin(1)
        print("an error", file=sys.stderr)
        display.leave()
    assert terminal.close() == []
    assert (tmp_path / "errors").read_text() == "an error\n"


def test_functions_of_the_user_print_where_no_view_is(tmp_path: Path, monkeypatch) -> None:
    terminal = Terminal(80)
    with terminal.standard(monkeypatch):
        telemetry = Telemetry(
            tmp_path, Console(), steps=2, on_step=lambda row: print("row", row["step"], type(sys.stdout))
        )
        for step in (1, 2):
            with telemetry.step(step):
                with telemetry.clock("generate", 3):
                    telemetry.tick(1)
                telemetry.log({"reward/mean": 0.5})
        telemetry.close()
    assert terminal.close() == [f"row {step} <class '_io.TextIOWrapper'>" for step in (1, 2)]
    assert b"generate" in terminal.raw  # phases are shown while they run
    assert b"reward" not in terminal.raw


def test_ctrl_c_leaves_the_terminal_as_it_was(toy: Toy, tmp_path: Path, monkeypatch) -> None:
    """In the middle of a phase: the view goes, and the message says where the run continues."""
    terminal = Terminal(80)

    def stopping(prompts, completions, **_):
        if (tmp_path / "run" / "rollouts" / "step-1.jsonl").exists():
            os.kill(os.getpid(), signal.SIGINT)
        return toy_rewards.share_of_a(prompts, completions)

    monkeypatch.setattr(toy_rewards, "stopping", stopping, raising=False)
    with terminal.standard(monkeypatch):
        before = sys.stdout, sys.stderr
        assert toy.run(tmp_path / "run", *RUN, reward="toy_rewards:stopping") == 130
        assert (sys.stdout, sys.stderr) == before
    left = terminal.close()
    assert left[-2].startswith("step 1/3  reward")
    assert left[-1].startswith("interrupted; ")
    assert "checkpoint-1" in left[-1]
    assert not terminal.cursor_is_hidden


def test_what_is_finished_first_is_said_in_the_view(monkeypatch, capfd) -> None:
    """Written to stderr, it would be drawn over by the next frame."""
    terminal = Terminal(80)
    interruption = Interruption()
    seen: list[str] = []
    with terminal.standard(monkeypatch):
        display = Display(Console(), 3)
        interruption.show = display.notices
        display.begin(1)
        interruption.hold("the update is finished and checkpoint-1 is written")
        assert interruption.ask(signal.SIGINT)
        display.log({}, 1, None)
        seen += [line.plain for line in display.view.lines(79, 23)]
        display.leave()
        assert capfd.readouterr().err == ""
        interruption.release()
        interruption.hold("checkpoint-1 is written")  # no view is there any more
        monkeypatch.setattr("refinerl.run.interruption._DOUBLE", -1.0)
        interruption.ask(signal.SIGTERM)
    terminal.close()
    assert seen[-2:] == [
        "interrupted: the update is finished and checkpoint-1 is written first",
        "a second signal ends the run at once, without that",
    ]
    assert "terminated: checkpoint-1 is written first; a second signal" in capfd.readouterr().err
    assert b"interrupted: the update is finished" in terminal.raw

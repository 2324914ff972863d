"""Runs that are stopped in each phase by Ctrl-C, SIGTERM and kill -9: what they say is what is there."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import toy_rewards
from refinerl.run import interruption
from refinerl.run.interruption import Interrupted, Interruption
from stopping import Server
from toy import Toy, rollouts, timeless

RUN = (
    "algorithm.name=ppo",
    "algorithm.samples_per_prompt=2",
    "algorithm.epochs=2",
    "critic.learning_rate=1e-3",
    "constraint.accept=all",
    "trainer.minibatch=4",
    "trainer.steps=5",
)
MOMENTS = {
    "generate of step 2": 1,
    "score of step 2": 1,
    "refine of step 2": 1,
    "update of step 2": 1,  # nothing has moved yet
    "optimizer step of step 2": 2,
    "sync of step 3": 3,
    "checkpoint-5": 5,
    "final/": 5,
}
"""Moments, each with the step after which a run goes on that is interrupted there; each run resumes the one before."""
HELD = ("optimizer", "sync")
NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(toy: Toy, tmp_path_factory) -> Path:
    """The run that was never stopped."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert toy.run(output, *RUN) == 0
    return output


def same(output: Path, whole: Path) -> None:
    """Assert that two finished runs are the same, bit for bit."""
    assert timeless(output) == timeless(whole)
    for step in range(1, 6):
        assert rollouts(output, step) == rollouts(whole, step)
    for name in ("policy", "critic"):
        mine, theirs = (torch.load(run / "checkpoint-5" / name / "trainer.pt") for run in (output, whole))
        assert all(torch.equal(mine["network"][key], t) for key, t in theirs["network"].items())
    assert not [path for path in output.rglob("*") if "partial" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moments"),
    [
        (signal.SIGINT, MOMENTS),
        (signal.SIGTERM, {m: step for m, step in MOMENTS.items() if m.startswith(("score", "optimizer"))}),
    ],
)
def test_a_run_that_is_interrupted_in_each_phase_says_where_it_goes_on(
    server: Server, toy: Toy, whole: Path, tmp_path: Path, number: signal.Signals, moments: dict[str, int]
):
    """Although `checkpoint.every` is 50. In an update the step is finished; elsewhere the last one is saved."""
    output = tmp_path / "run"
    for place, (moment, after) in enumerate(moments.items()):
        run = server.start([*toy.arguments(output, *RUN), "--resume"], tmp_path / str(place), moment)
        run.send(number)
        if moment.startswith(HELD):
            run.tells(f"{NAMES[number]}: step {after} is finished and saved first")
            run.go_on()
        assert run.end() == 128 + number
        saved = output / f"checkpoint-{after}"
        assert run.told().splitlines()[-1] == f"{NAMES[number]}; --resume goes on after step {after}, from {saved}"
        assert (saved / "trainer_state.json").exists(), moment
    assert toy.run(output, *RUN, resume=True) == 0
    same(output, whole)


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_phase_goes_on(server: Server, toy: Toy, whole: Path, tmp_path: Path):
    output = tmp_path / "run"
    for place, moment in enumerate(MOMENTS):
        words = [*toy.arguments(output, *RUN, "checkpoint.every=1"), "--resume"]
        run = server.start(words, tmp_path / str(place), moment)
        run.send(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    assert toy.run(output, *RUN, resume=True) == 0
    same(output, whole)


@pytest.mark.slow
def test_a_second_signal_ends_an_update_which_is_then_not_saved(server: Server, toy: Toy, whole: Path, tmp_path: Path):
    output = tmp_path / "run"
    words = toy.arguments(output, *RUN, "checkpoint.every=1")
    run = server.start(words, tmp_path / "logs", "optimizer step of step 3")
    run.send(signal.SIGINT)
    run.tells("interrupted: step 3 is finished and saved first; a second signal ends the run at once, without that")
    run.send(signal.SIGINT)
    assert run.end() == 130
    saved = output / "checkpoint-2"
    assert run.told().splitlines()[-1] == f"interrupted; --resume goes on after step 2, from {saved}"
    assert toy.run(output, *RUN, resume=True) == 0
    same(output, whole)


@pytest.mark.slow
def test_an_interruption_during_loading_says_where_the_run_goes_on(server: Server, toy: Toy, tmp_path: Path):
    output = tmp_path / "run"
    loading = f"load {toy.folder / 'model'}"
    run = server.start(toy.arguments(output, *RUN), tmp_path / "first", loading)
    run.send(signal.SIGTERM)
    assert run.end() == 143
    assert run.told() == "terminated; no checkpoint was written yet, so --resume begins again\n"
    assert toy.run(output, *RUN, "trainer.steps=1", "trainer.schedule=constant", resume=True) == 0
    words = ["--output-dir", str(output), "--resume", "trainer.steps=2"]
    run = server.start(words, tmp_path / "second", loading)
    run.send(signal.SIGINT)
    assert run.end() == 130
    assert run.told() == f"interrupted; --resume goes on after step 1, from {output / 'checkpoint-1'}\n"


def test_an_interrupt_that_the_users_code_swallows_ends_the_run_before_the_update(
    toy: Toy, tmp_path, monkeypatch, capsys
):
    """As a bare `except` in a reward function does."""

    def swallows(prompts, completions, **_):
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        return toy_rewards.share_of_a(prompts, completions)

    monkeypatch.setattr(toy_rewards, "constant", swallows)
    assert toy.run(tmp_path / "run", *RUN, reward="toy_rewards:constant") == 130
    assert "interrupted; no checkpoint was written yet" in capsys.readouterr().err


def test_a_signal_that_is_passed_on_twice_is_one_request(capfd, monkeypatch):
    monkeypatch.setattr(interruption, "_DOUBLE", 3600.0)  # on a busy machine a second may pass between two lines
    requests = Interruption()
    with requests.listening():
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # at once, as torchrun sends it after the terminal's SIGINT
        requests.hold("the checkpoint is written")
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err.count("interrupted: the checkpoint is written first;") == 1
        monkeypatch.setattr(interruption, "_DOUBLE", 0.0)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_signals_that_somebody_handles_are_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption().listening():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_has_the_default_actions():
    """Such as a worker of the user's `multiprocessing.Pool`, which SIGTERM ends."""
    with Interruption().listening():
        child = os.fork()
        if not child:
            mine = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
            os._exit(mine != (signal.SIG_DFL, signal.default_int_handler))
        assert os.waitpid(child, 0)[1] == 0
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL

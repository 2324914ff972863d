"""What is left of a run that ends too early: nothing that was learnt is lost, and what is said of it is true."""

from __future__ import annotations

import re
import signal

import pytest
import torch

import toy_rewards
from refinerl.contracts import WorldOfOne
from refinerl.run.checkpoint import State
from refinerl.run.interruption import Interrupted, Interruption
from refinerl.run.keeper import Keeper
from toy import Toy, rollouts, timeless

STEPS = ("trainer.steps=3", "constraint.accept=all")


class Weights:
    """A trainer that may not be saved."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def save(self, folder):
        if self.error:
            raise self.error


def breaking(step: int, error: BaseException):
    """The toy's reward, which raises at a step's scores; each step scores y, then ỹ."""
    calls = 0

    def reward(prompts, completions, **_):
        nonlocal calls
        calls += 1
        if calls == 2 * step - 1:
            raise error
        return toy_rewards.share_of_a(prompts, completions)

    return reward


def test_an_interrupted_run_goes_on_after_its_last_whole_step(toy: Toy, tmp_path, monkeypatch, capsys):
    """Although `checkpoint.every` is 50: the whole step is saved when the interrupt comes."""
    monkeypatch.setattr(toy_rewards, "constant", breaking(3, KeyboardInterrupt()))
    options = [*STEPS, "algorithm.dynamic_sampling=false"]
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:constant") == 130
    said = capsys.readouterr().err
    assert f"--resume goes on after step 2, from {tmp_path / 'run' / 'checkpoint-2'}" in said
    monkeypatch.setattr(toy_rewards, "constant", toy_rewards.share_of_a)
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:constant", resume=True) == 0
    assert toy.run(tmp_path / "whole", *options) == 0
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    assert rollouts(tmp_path / "run", 3) == rollouts(tmp_path / "whole", 3)


def test_an_interrupt_in_the_first_step_says_that_nothing_was_saved(toy: Toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy_rewards, "constant", breaking(1, KeyboardInterrupt()))
    assert toy.run(tmp_path / "run", *STEPS, reward="toy_rewards:constant") == 130
    assert re.search("no checkpoint was written yet, so --resume begins again", capsys.readouterr().err)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_an_interrupt_while_the_model_is_written_says_what_stands(toy: Toy, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("refinerl.run.checkpoint.export", interrupted)  # which writes final/
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 130
    assert "--resume goes on after step 1, from" in capsys.readouterr().err
    monkeypatch.undo()
    assert toy.run(tmp_path / "run", "trainer.steps=1", resume=True) == 0
    assert (tmp_path / "run" / "final").is_dir()


def test_a_mistake_of_the_users_late_in_a_run_loses_no_step(toy: Toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy_rewards, "constant", breaking(2, ZeroDivisionError()))
    options = [*STEPS, "algorithm.dynamic_sampling=false"]
    assert toy.run(tmp_path / "run", *options, reward="toy_rewards:constant") == 1
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
    told = "stopped: ZeroDivisionError in score of step 2; see the traceback above; --resume goes on after step 1, from"
    assert capsys.readouterr().err.count(told) == 1


def test_weights_in_the_middle_of_an_update_are_not_saved(tmp_path):
    keeper = Keeper(tmp_path, {"policy": Weights()})
    keeper.reached(State(step=4))
    with pytest.raises(KeyboardInterrupt), keeper.changing():
        raise KeyboardInterrupt
    keeper.rescue()
    assert not list(tmp_path.iterdir())
    keeper.reached(State(step=5))
    keeper.rescue()
    assert keeper.standing() == f"--resume goes on after step 5, from {tmp_path / 'checkpoint-5'}"


class Two(WorldOfOne):
    """The first of two ranks, which hears of the other's request, and gets one itself while they agree."""

    size = 2

    def __init__(self, requests: Interruption, other: int) -> None:
        self.requests, self.other = requests, other

    def all_reduce(self, value, op="sum"):
        asked = torch.tensor(max(int(value), self.other))
        self.requests.ask(signal.SIGTERM)
        return asked


def test_a_rank_is_not_interrupted_without_the_others(tmp_path):
    requests = Interruption()
    requests.join(tells=False)
    world = Two(requests, other=0)
    keeper = Keeper(tmp_path, {"policy": Weights()}, world=world, interruption=requests)
    try:
        keeper.reached(State(step=1))  # the request arrives too late for this agreement
    except Interrupted:
        pytest.fail("the other rank waits")  # an interrupt would end all tests
    with pytest.raises(Interrupted), keeper.changing():
        raise AssertionError
    keeper.rescue()
    assert keeper.standing() == f"--resume goes on after step 1, from {tmp_path / 'checkpoint-1'}"
    with pytest.raises(Interrupted):
        Keeper(tmp_path, {}, world=Two(Interruption(), other=15)).reached(State(step=2))


def test_a_checkpoint_is_due_after_so_many_minutes(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("refinerl.run.keeper.time.monotonic", lambda: now)
    keeper = Keeper(tmp_path, {"policy": Weights()}, every=50, minutes=30)
    now += 29 * 60
    assert not keeper.due(1)
    now += 60
    assert keeper.due(2)
    keeper.reached(State(step=2))
    keeper.save()
    assert not keeper.due(3)
    now += 30 * 60
    assert keeper.due(4)
    assert not Keeper(tmp_path, {}, every=50, minutes=0).due(49)


@pytest.mark.parametrize(("minutes", "saved"), [("1e-9", [2, 3]), ("0", [3])])
def test_minutes_are_beside_steps(toy: Toy, tmp_path, minutes, saved):
    """Every step takes longer than that; the last two checkpoints are kept."""
    assert toy.run(tmp_path / "run", *STEPS, f"checkpoint.minutes={minutes}") == 0
    assert sorted(int(path.name[11:]) for path in (tmp_path / "run").glob("checkpoint-*")) == saved


def test_a_rescue_that_fails_hides_nothing_and_claims_nothing(tmp_path):
    keeper = Keeper(tmp_path, {"policy": Weights(OSError("No space left on device"))})
    keeper.reached(State(step=4))
    keeper.rescue()
    assert "no checkpoint was written yet" in keeper.standing()
    assert "(checkpoint-4 could not be written: No space left on device)" in keeper.standing()

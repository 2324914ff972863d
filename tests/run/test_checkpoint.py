"""A run's folder: created once, saved whole, resumed from the last whole checkpoint."""

import itertools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from refinerl.errors import UserError
from refinerl.records import Update
from refinerl.run import checkpoint
from refinerl.run.checkpoint import State

TAUGHT = Update({}, steps=1, skipped=())
SKIPPED = Update({}, steps=0, skipped=("loss", "loss"))


class Weights:
    """The smallest thing that saves and loads."""

    def __init__(self, value: float) -> None:
        self.value = value

    def save(self, folder: Path) -> None:
        (folder / "value").write_text(str(self.value))

    def load(self, folder: Path) -> None:
        self.value = float((folder / "value").read_text())


class Broken(Weights):
    def save(self, folder: Path) -> None:
        super().save(folder)
        raise OSError(28, "No space left on device")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    checkpoint.begin(path, "seed: 0\n")
    return path


def test_a_folder_holds_one_run(folder, tmp_path):
    with pytest.raises(UserError, match="--resume"):
        checkpoint.check_new(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        checkpoint.check_new(tmp_path / "other")
    assert (folder / "config.yaml").read_text() == "seed: 0\n"


def test_state_weights_and_random_streams_come_back(folder):
    checkpoint.save(folder, State(3, 12, 1), {"policy": Weights(0.5)}, keep=2)
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002 - the global stream is meant
    random.seed(9), np.random.seed(9), torch.manual_seed(9)  # noqa: NPY002
    policy = Weights(0)
    assert checkpoint.resume(folder, {"policy": policy}) == State(3, 12, 1)
    assert policy.value == 0.5
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


def test_only_the_last_checkpoints_are_kept(folder):
    for step in (1, 2, 10):
        checkpoint.save(folder, State(step), {"policy": Weights(step)}, keep=2)
    assert checkpoint.checkpoints(folder) == [2, 10]


def test_a_save_that_fails_leaves_the_older_checkpoint(folder):
    checkpoint.save(folder, State(1), {"policy": Weights(1)}, keep=1)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(folder, State(2), {"policy": Broken(2)}, keep=1)
    assert checkpoint.checkpoints(folder) == [1]
    assert not list(folder.glob(".checkpoint-*"))


def killed_in(change: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that kills itself before this change of a folder; True if it did not get that far."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        made = itertools.count(1)

        def dying(call: Callable[..., None]) -> Callable[..., None]:
            def act(*arguments: object, **options: object) -> None:
                if next(made) == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                call(*arguments, **options)

            return act

        for name in ("replace", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name)))
        action()
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def test_whenever_a_save_is_killed_there_is_a_complete_checkpoint_of_the_step(folder, tmp_path):
    """The one that was replaced had been removed before the new one had its name; an old one was left half removed."""
    for step in (1, 2):
        checkpoint.save(folder, State(step), {"policy": Weights(step)}, keep=2)
    found = set()
    for change in itertools.count(1):
        copy = tmp_path / str(change)
        shutil.copytree(folder, copy)
        done = killed_in(change, lambda: checkpoint.save(copy, State(2), {"policy": Weights(3)}, keep=1))  # noqa: B023
        policy = Weights(0)
        assert checkpoint.resume(copy, {"policy": policy}).step == 2
        assert not list(copy.glob(".*"))
        for place in copy.glob("checkpoint-*"):
            assert {"policy", "rng-0.pt", "trainer_state.json"} <= {path.name for path in place.iterdir()}
        found.add(policy.value)
        if done:
            break
    assert found == {2, 3}
    assert change > 9


def test_resuming_takes_back_what_came_after_the_checkpoint(folder):
    checkpoint.save(folder, State(2), {}, keep=2)
    (folder / ".checkpoint-3.partial").mkdir()
    rows = [json.dumps({"schema": 1, "step": step}) + "\n" for step in (0, 1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(rows) + '{"schema": 1, "st')
    for step in (1, 2, 3):
        (folder / "rollouts" / f"step-{step}.jsonl").write_text("")
    (folder / "rollouts" / ".step-4.jsonl.123.partial").write_text("")
    (folder / ".config.yaml.123.partial").write_text("")
    checkpoint.resume(folder, {})
    assert (folder / "metrics.jsonl").read_text() == "".join(rows[:3])
    assert sorted(p.name for p in (folder / "rollouts").iterdir()) == ["step-1.jsonl", "step-2.jsonl"]
    assert not list(folder.glob(".*"))


def test_without_a_checkpoint_a_run_begins_anew(folder):
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    assert checkpoint.resume(folder, {}) == State()
    assert (folder / "metrics.jsonl").read_text() == ""


def test_checkpoints_of_others_are_refused(folder):
    checkpoint.save(folder, State(2), {"policy": Weights(1)}, keep=2)
    with pytest.raises(UserError, match="critic"):
        checkpoint.resume(folder, {"policy": Weights(0), "critic": Weights(0)})
    (folder / "checkpoint-2" / "trainer_state.json").write_text('{"schema": 99, "step": 2}')
    with pytest.raises(UserError, match="another version"):
        checkpoint.resume(folder, {})
    (folder / "checkpoint-2" / "trainer_state.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.resume(folder, {})


def test_the_best_checkpoint_is_kept_whatever_its_age(folder):
    state = State()
    for step, score in enumerate([0.1, 0.4, None, 0.4, 0.3], start=1):
        state = state.after(step, step, TAUGHT, score)
        checkpoint.save(folder, state, {}, keep=1)
    assert (state.best_step, state.best_score) == (2, 0.4)
    assert checkpoint.checkpoints(folder) == [2, 5]
    assert checkpoint.resume(folder, {}) == state
    checkpoint.save(folder, state.after(6, 6, TAUGHT, 0.5), {}, keep=1)
    assert checkpoint.checkpoints(folder) == [6]


def test_optimizer_steps_are_counted_and_so_are_skipped_ones_in_a_row():
    state = State().after(1, 8, TAUGHT, None).after(2, 16, SKIPPED, None).after(3, 24, SKIPPED, None)
    assert (state.optimizer_steps, state.skipped_in_a_row) == (1, 4)
    assert state.after(4, 32, TAUGHT, None).skipped_in_a_row == 0


def test_a_checkpoint_of_before_the_count_has_been_taught(tmp_path):
    checkpoint.save(tmp_path, State(step=7), {}, keep=1)
    path = tmp_path / "checkpoint-7" / "trainer_state.json"
    fields = json.loads(path.read_text())
    del fields["optimizer_steps"]
    path.write_text(json.dumps(fields))
    assert checkpoint.resume(tmp_path, {}).optimizer_steps == 7


def _gpus(monkeypatch, *numbers: int) -> dict[int, torch.Tensor]:
    """The random states of as many GPUs, by their number; asking for those of all is an error."""
    states = {index: torch.tensor([number]) for index, number in enumerate(numbers)}

    def all_of_them(*_: object) -> None:
        raise AssertionError("a context on every GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state_all", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, all_of_them)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    return states


def test_the_random_state_of_the_runs_own_gpu_is_saved_and_no_other_is_touched(folder, monkeypatch):
    states = _gpus(monkeypatch, 1, 2, 3)
    checkpoint.save(folder, State(1), {}, keep=1, device="cuda:1")
    states.update({index: torch.tensor([0]) for index in range(3)})
    checkpoint.resume(folder, {}, device="cuda:1")
    assert [state.item() for state in states.values()] == [0, 2, 0]


def test_a_checkpoint_with_the_random_states_of_all_gpus_still_loads(folder, monkeypatch):
    states = _gpus(monkeypatch, 0, 0)
    path = checkpoint.save(folder, State(1), {}, keep=1)
    rng = torch.load(path / "rng-0.pt", weights_only=False)
    del rng["device"]
    torch.save({**rng, "cuda": [torch.tensor([8]), torch.tensor([9])]}, path / "rng-0.pt")
    checkpoint.resume(folder, {}, device="cuda:1")
    assert [state.item() for state in states.values()] == [0, 9]
    checkpoint.resume(folder, {})  # on a CPU there is nothing to restore there

"""Trackers: stand-ins for wandb and trackio, which record how they are called."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refinerl.errors import UserError
from refinerl.run.trackers import make_trackers
from refinerl.run.trackers.identity import IDS
from toy import Toy, metrics


class Fake:
    """The interface that wandb and trackio share."""

    def __init__(self, run_id: str | None = "id-1", fault: Exception | None = None) -> None:
        self.run_id, self.fault = run_id, fault
        self.started: list[dict[str, Any]] = []
        self.logged: list[int] = []
        self.ended: list[int] = []

    def init(self, **arguments: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        self.started.append(arguments)
        return SimpleNamespace(id=arguments.get("id", self.run_id), log=self.log, finish=self.finish)

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append(step)

    def finish(self, exit_code: int = 0) -> None:
        self.ended.append(exit_code)


def stand_in(monkeypatch, name: str = "wandb", **how: Any) -> Fake:
    fake = Fake(**how)
    monkeypatch.setitem(sys.modules, name, fake)
    return fake


def test_a_resumed_run_continues_its_run_in_the_tracker(toy: Toy, tmp_path: Path, monkeypatch):
    """It used to begin another one."""
    wandb = stand_in(monkeypatch)
    words = [
        "telemetry.trackers=[wandb]",
        "telemetry.project=letters",
        "telemetry.run_name=first",
        "checkpoint.every=1",
        "telemetry.completions=0",
    ]
    assert toy.run(tmp_path / "run", *words, "trainer.steps=1") == 0
    wandb.run_id = "another"
    assert toy.run(tmp_path / "run", *words, "trainer.steps=2", "telemetry.run_name=second", resume=True) == 0
    first, second = wandb.started
    assert (first["project"], first["name"]) == ("letters", "first")
    assert "resume" not in first
    assert {name: second[name] for name in ("project", "name", "id", "resume")} == {
        "project": "letters",
        "name": "first",
        "id": "id-1",
        "resume": "allow",
    }
    assert wandb.logged == [1, 2]
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]


def test_a_run_without_a_name_has_its_folders(tmp_path, monkeypatch):
    trackio = stand_in(monkeypatch, "trackio", run_id=None)
    for _ in range(2):
        (tracker,) = make_trackers(["trackio"], tmp_path, {})
        tracker.log({"reward/mean": 0.5}, 1)
        tracker.close(failed=False)
    first, second = trackio.started
    assert (first["project"], first["name"]) == ("refinerl", tmp_path.name)
    assert (second["name"], second["resume"]) == (tmp_path.name, "allow")
    assert "id" not in second
    assert json.loads((tmp_path / IDS).read_text())["trackio"]["name"] == tmp_path.name


def test_steps_that_were_sent_are_not_sent_again(tmp_path, monkeypatch):
    """After an interruption a run takes the steps since its checkpoint again; a service has them already."""
    wandb = stand_in(monkeypatch)
    for first, last in ((1, 5), (3, 7)):
        (tracker,) = make_trackers(["wandb"], tmp_path, {})
        for step in range(first, last + 1):
            tracker.log({"reward/mean": 0.5}, step)
    assert wandb.logged == [1, 2, 3, 4, 5, 6, 7]
    assert tracker.lacks(6)
    assert not tracker.lacks(5)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_step_that_was_given_up_is_sent_when_the_run_is_resumed(tmp_path, monkeypatch, name):
    """Later steps were sent, so it counted as sent. W&B drops what comes after them, and does not get it."""
    service = stand_in(monkeypatch, name)
    (tracker,) = make_trackers([name], tmp_path, {})
    for step in (1, 2, 4, 7):
        tracker.log({"reward/mean": 0.5}, step)
    entry = json.loads((tmp_path / IDS).read_text())[name]
    assert (entry["step"], entry["lacking"]) == (7, [[3, 3], [5, 6]])
    (tracker,) = make_trackers([name], tmp_path, {})
    lacking = [] if name == "wandb" else [3, 5, 6]
    assert [step for step in range(1, 9) if tracker.lacks(step)] == [*lacking, 8]
    for step in range(1, 9):
        tracker.log({"reward/mean": 0.5}, step)
    assert service.logged == [1, 2, 4, 7, *lacking, 8]
    entry = json.loads((tmp_path / IDS).read_text())[name]
    assert entry["step"] == 8
    assert entry.get("lacking") == (None if lacking else [[3, 3], [5, 6]])


def test_the_last_step_that_was_sent_does_not_go_back(tmp_path, monkeypatch):
    """A message that failed is sent after later ones; a resumed run sent all of those again."""
    trackio = stand_in(monkeypatch, "trackio")
    (tracker,) = make_trackers(["trackio"], tmp_path, {})
    for step in (1, 3, 4, 2):
        tracker.log({"reward/mean": 0.5}, step)
    (tracker,) = make_trackers(["trackio"], tmp_path, {})
    for step in range(1, 6):
        tracker.log({"reward/mean": 0.5}, step)
    assert trackio.logged == [1, 3, 4, 2, 5]


def test_a_tracker_that_cannot_start_ends_those_that_have_and_names_them(tmp_path, monkeypatch):
    wandb = stand_in(monkeypatch)
    stand_in(monkeypatch, "trackio", fault=OSError("read-only file system"))
    with pytest.raises(UserError, match=r"telemetry\.trackers=trackio cannot start: read-only file system") as refused:
        make_trackers(["tensorboard", "wandb", "trackio"], tmp_path, {})
    assert wandb.ended == [1]
    assert str(refused.value).endswith("; wandb had started before: its run is ended, without a step of this start")
    assert not list(tmp_path.iterdir())


def test_the_first_tracker_that_cannot_start_is_alone_in_the_message(tmp_path, monkeypatch):
    stand_in(monkeypatch, fault=OSError("no network"))
    with pytest.raises(UserError) as refused:
        make_trackers(["tensorboard", "wandb"], tmp_path, {})  # TensorBoard writes nothing before the first step
    assert "had started" not in str(refused.value)


def test_no_tracker_starts_if_the_library_of_one_is_not_installed(tmp_path, monkeypatch):
    wandb = stand_in(monkeypatch)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"telemetry\.trackers asks for trackio, which is not installed: pip install"):
        make_trackers(["wandb", "trackio"], tmp_path, {})
    assert wandb.started == []


def test_a_tracker_that_cannot_even_be_ended_leaves_the_message(tmp_path, monkeypatch):
    trackio = stand_in(monkeypatch, "trackio")
    monkeypatch.setattr(trackio, "finish", lambda: 1 / 0)
    stand_in(monkeypatch, fault=OSError("no network"))
    with pytest.raises(UserError, match=r"telemetry\.trackers=wandb cannot start: no network; ") as refused:
        make_trackers(["trackio", "wandb"], tmp_path, {})
    assert str(refused.value).endswith("; trackio had started before, and did not end (ZeroDivisionError)")


@pytest.mark.parametrize(("steps", "code"), [("1", 0), ("2", 1)])
def test_a_run_that_fails_is_marked(toy: Toy, tmp_path, monkeypatch, steps, code):
    wandb = stand_in(monkeypatch)
    words = ["telemetry.trackers=[wandb]", "telemetry.completions=0", f"trainer.steps={steps}", "guard.max_idle=2"]
    reward = "toy_rewards:share_of_a" if code == 0 else "toy_rewards:never"
    assert toy.run(tmp_path / "run", *words, reward=reward) == code
    assert wandb.ended == [code]


def test_a_run_without_a_step_leaves_no_id(tmp_path, monkeypatch):
    """Its folder can be used again."""
    stand_in(monkeypatch)
    (tracker,) = make_trackers(["wandb"], tmp_path, {})
    tracker.log({"evaluate/reward": 0.5}, 0)
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_cannot_start_is_one_sentence(tmp_path, monkeypatch):
    """Nobody has logged in, say; it was a traceback."""
    stand_in(monkeypatch, fault=RuntimeError("api_key not configured (no-tty)\nmore"))
    with pytest.raises(
        UserError, match=r"telemetry.trackers=wandb cannot start: api_key .*; log in with `wandb login`"
    ):
        make_trackers(["wandb"], tmp_path, {})


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            None,
            "its store here is a database, sqlite:///{here}/mlflow.db, and mlflow-skinny has none; pip install mlflow, "
            "or set MLFLOW_TRACKING_URI to a server",
        ),
        ("sqlite:///{here}/my.db", "its store here is a database, sqlite:///{here}/my.db, and mlflow-skinny has none"),
        ("postgresql+psycopg2://me:secret@host/db", "its store here is a database, postgresql, and mlflow-skinny has"),
        (
            "file://{here}/mlruns",
            "it takes a folder, file://{here}/mlruns, only with MLFLOW_ALLOW_FILE_STORE=true in the environment; set",
        ),
        ("{here}/mlruns", "it takes a folder, {here}/mlruns, only with MLFLOW_ALLOW_FILE_STORE=true"),
    ],
)
@pytest.mark.slow
def test_the_stores_that_mlflow_does_not_start_with(tmp_path, monkeypatch, uri, said):
    """MLflow spoke of its model registry, and in several sentences of files."""
    mlflow = pytest.importorskip("mlflow")
    if importlib.util.find_spec("sqlalchemy") is not None:
        pytest.skip("with sqlalchemy the database works")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(here=tmp_path))
    assert mlflow.__version__
    with pytest.raises(UserError) as refused:
        make_trackers(["mlflow"], tmp_path, {})
    assert str(refused.value).startswith("telemetry.trackers=mlflow cannot start: " + said.format(here=tmp_path))
    assert ". " not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_tensorboard_goes_on_in_its_folder(tmp_path, monkeypatch):
    """And hides what the interrupted run wrote after its checkpoint."""
    made: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            made.append((folder, purge_step))

        def add_scalar(self, *_: Any) -> None:
            """Written."""

        def flush(self) -> None:
            """Written."""

        def close(self) -> None:
            """Nothing is pending."""

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    for step in (1, 4):
        (tracker,) = make_trackers(["tensorboard"], tmp_path, {})
        tracker.log({"reward/mean": 0.5}, step)
        tracker.close(failed=False)
    assert made == [(str(tmp_path / "tensorboard"), 1), (str(tmp_path / "tensorboard"), 4)]


def test_the_events_of_a_run_without_a_step_are_removed_with_it(toy: Toy, tmp_path: Path, monkeypatch):
    """They kept the folder from being used again; and the writer must not write once more after they are gone."""

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.events = Path(folder) / "events"
            self.events.parent.mkdir(exist_ok=True)
            self.events.write_text("")

        def add_scalar(self, *_: Any) -> None:
            """Written at the end."""

        add_text = flush = add_scalar

        def close(self) -> None:
            with self.events.open("r+") as file:
                file.write("events")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    (tmp_path / "fails_in_training.py").write_text(
        "def reward(prompts, completions, wanted, **_):\n    return [1.0 if w == 'a' else 1 / 0 for w in wanted]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, wanted in (("train.jsonl", "b"), ("held_out.jsonl", "a")):
        (tmp_path / name).write_text(json.dumps({"prompt": "b", "wanted": wanted}) + "\n")
    words = [
        f"task.path={tmp_path / 'train.jsonl'}",
        f"evaluate.path={tmp_path / 'held_out.jsonl'}",
        "evaluate.every=2",
    ]
    words.append("telemetry.trackers=[tensorboard]")
    assert toy.run(tmp_path / "run", *words, reward="fails_in_training:reward") != 0
    assert not list((tmp_path / "run").iterdir())
    assert toy.run(tmp_path / "run", "trainer.steps=1", "telemetry.trackers=[tensorboard]") == 0
    assert (tmp_path / "run" / "tensorboard" / "events").read_text() == "events"


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 7}',
        '{"schema": 1, "wandb": 3}',
        '{"schema": 1, "wandb": {"step": "x"}}',
        '{"schema": 1, "wandb": {"step": 3, "lacking": 2}}',
        '{"schema": 1, "wandb": {"step": 3, "lacking": [2]}}',
        "[]",
    ],
)
def test_the_ids_of_another_version(tmp_path, monkeypatch, text):
    stand_in(monkeypatch)
    (tmp_path / IDS).write_text(text)
    with pytest.raises(UserError, match="was not written by this version of refinerl: delete it"):
        make_trackers(["wandb"], tmp_path, {})

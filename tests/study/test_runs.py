"""Runs in processes of their own: their rows while they go on, their last lines, a death of the parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from launching import environment
from refinerl.study import runs
from refinerl.study.runs import Run, Tail
from toy import Toy


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs find the tests' rewards."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def wait_for(what, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_ends_when_the_process_that_started_it_is_killed(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = toy.arguments(folder, "constraint.name=none", "trainer.steps=100000")[:-2]
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom refinerl.study.runs import Run\n"
        "run = Run.start(sys.argv[2:], Path(sys.argv[1]))\nprint(run.process.pid, flush=True)\ntime.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder), *arguments], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    tail = Tail(folder / "metrics.jsonl")
    wait_for(tail.rows)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: "interrupted; --resume" in runs.last_line(runs.log_of(folder)))
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text())


def test_bad_input_is_the_last_line(tmp_path: Path) -> None:
    run = Run.start(["smollm", "trainer.stepz=1"], tmp_path / "a" / "run")
    assert run.end() == 2
    assert run.last_line().startswith("error: unknown key 'trainer.stepz'")
    assert run.rows() == []


def test_threads_and_device_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    pinned = runs.environment(3, "1")
    assert (pinned["OMP_NUM_THREADS"], pinned["MKL_NUM_THREADS"], pinned["CUDA_VISIBLE_DEVICES"]) == ("3", "3", "1")
    assert runs.environment(1)["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_run_that_does_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    run = Run(tmp_path / "run", process, 0.0)
    runs.end_all([run], patience=0.3)
    assert run.code() == -signal.SIGKILL
    assert run.last_line() == "killed by SIGKILL"
    process.stdout.close()


def test_rows_of_a_file_that_grows_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.rows() == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in tail.rows()] == [1, 2]
    with path.open("a") as file:
        file.write('ep": 3}\n')
    assert [row["step"] for row in tail.rows()] == [1, 2, 3]
    other = tmp_path / "other"
    other.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 4, 5, 6)))
    os.replace(other, path)
    assert [row["step"] for row in tail.rows()] == [1, 4, 5, 6]


def test_words_mean_the_values_that_they_were_made_of() -> None:
    values = {
        "a": 1, "b": 0.1, "c": True, "d": None, "e": "text", "f": "1e-3", "g": "no", "h": [1, "x: y"],
        "i": "my module:Class", "j": "m:C", "k": "", "l": {"m": "#"}, "n": 1e-12, "o": "a#b c # d", "p": "ỹ\n",
    }  # fmt: skip
    assert OmegaConf.to_container(OmegaConf.from_dotlist(runs.words(values))) == values

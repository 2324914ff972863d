"""Two runs of the real command side by side: their end, a failure, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from launching import environment
from toy import Toy, metrics

PLAY = """
import json, sys
from pathlib import Path
from rich.console import Console
from refinerl.study.demo.command import play
arguments, steps, folder = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
sys.exit(play(arguments, {name: folder / name for name in arguments}, steps=steps, title="two toys", console=Console()))
"""


def demo(toy: Toy, folder: Path, steps: int, **of_dynamic: str) -> subprocess.Popen[str]:
    """Start two arms on the toy model; `of_dynamic` are options of the second run."""
    import json

    common = [f"trainer.steps={steps}", "trainer.batch=8"]
    arguments = {
        "none": toy.arguments(folder / "none", *common, "constraint.name=none")[:-2],
        "dynamic": toy.arguments(folder / "dynamic", *common, **of_dynamic)[:-2],
    }
    command = [sys.executable, "-c", PLAY, json.dumps(arguments), str(steps), str(folder)]
    return subprocess.Popen(
        command, env=environment(COLUMNS="80"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_view_does_not_wait_for_torch():
    code = "import sys, refinerl.study.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=120, check=False).returncode == 0


@pytest.mark.slow
def test_a_run_that_fails_ends_the_demo_with_its_last_line(toy: Toy, tmp_path):
    process = demo(toy, tmp_path, 500, reward="toy_rewards:not_a_number")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: a run of the demo failed: error: " in said
    assert str(tmp_path / "dynamic.log") in said
    assert "Traceback" not in said
    assert not running(tmp_path)


@pytest.mark.slow
def test_ctrl_c_ends_both_runs_and_says_where_they_are(toy: Toy, tmp_path):
    process = demo(toy, tmp_path, 5000)
    paths = [tmp_path / name / "metrics.jsonl" for name in ("none", "dynamic")]
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not running(tmp_path)
    for name in ("none", "dynamic"):
        (saved,) = (tmp_path / name).glob("checkpoint-*")
        step = int(saved.name.removeprefix("checkpoint-"))
        assert f"{tmp_path / name}: interrupted; --resume goes on after step {step}, from {saved}" in said
        assert metrics(tmp_path / name)[-1]["step"] == step  # also if it was interrupted in an update
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_command_from_start_to_end(tmp_path):
    small = ["trainer.steps=2", "trainer.batch=16", "trainer.minibatch=16", "evaluate.every=1", "evaluate.limit=20"]
    done = subprocess.run(
        [sys.executable, "-m", "refinerl.study", "demo", *small],
        cwd=tmp_path,
        env=environment(COLUMNS="80"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").iterdir()  # of its own, by the time
    assert folder.name.startswith("demo-")
    assert max(map(cell_len, done.stdout.splitlines())) <= 80
    for arm in ("none", "dynamic"):
        rows = metrics(folder / arm / "seed-0")
        assert [row["step"] for row in rows] == [0, 1, 2]
        assert f"{arm:7} step  2/2  held out {rows[-1]['evaluate/pass@1']:4.0%}" in done.stdout
        assert (folder / arm / "seed-0" / "final").is_dir()
        report = Path("runs") / folder.name / arm / "seed-0" / "report.html"
        assert (tmp_path / report).exists()
        assert str(report) in done.stdout
    first, second = (metrics(folder / arm / "seed-0")[0]["evaluate/pass@1"] for arm in ("none", "dynamic"))
    assert first == second  # the same model before training
    assert "What you saw" in done.stdout
    again = subprocess.run(
        [sys.executable, "-m", "refinerl.study.demo", str(folder), "--svg", str(tmp_path / "end.svg")],
        env=environment(COLUMNS="80"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "What you saw" in again.stdout
    assert "@font-face" not in (tmp_path / "end.svg").read_text()


def running(folder: Path) -> list[str]:
    """The processes whose command line names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(process.name) != os.getpid():
            found.append(words.replace("\0", " "))
    return found

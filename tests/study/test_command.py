"""Studies of the toy by the command: an interruption and a resume, tuning, bands, folders that are another's."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launching import environment
from refinerl.study import record, runs
from refinerl.study.plan import Plan
from refinerl.study.record import Record
from refinerl.study.runs import Tail
from studying import rewards_found, run_here, study, toy_run, values, write
from toy import Toy, metrics, timeless

LONG = {"trainer.steps": 8, "task.reward": "toy_rewards:waits", "algorithm.max_resamples": 0}
"""Knobs of runs that wait in their third step, so that a test comes in time."""


@pytest.fixture
def wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file while which those runs wait."""
    path = tmp_path / "wait"
    path.touch()
    monkeypatch.setenv("TOY_WAIT", str(path))
    return path


@pytest.fixture(autouse=True)
def _rewards() -> Iterator[None]:
    with rewards_found():
        yield


def begun(*arguments: object) -> subprocess.Popen[str]:
    """Starts the command in a process."""
    words = [sys.executable, "-m", "refinerl.study", *map(str, arguments)]
    return subprocess.Popen(
        words,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job ignores
    )


def wait_for(what, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(folder: Path) -> int:
    return len(Tail(folder / "metrics.jsonl").rows())


@pytest.mark.slow
def test_a_study_that_is_interrupted_goes_on_where_it_stopped(toy: Toy, tmp_path: Path, wait: Path, capsys) -> None:
    arms = {"none": {"constraint.name": "none"}, "static": {"constraint.name": "static", "constraint.beta": 0.1}}
    content = values(toy, arms=arms, tuning=None, seeds=[3], compare=[["static", "none"]])
    content["set"] |= LONG
    source, output = write(tmp_path / "two.yaml", content), tmp_path / "out"
    process = begun(source, "--output-dir", output, "--workers", 2)
    folders = [output / arm / "seed-3" for arm in arms]
    wait_for(lambda: all(rows(folder) >= 2 for folder in folders))
    assert study(source, "--output-dir", output) == 2  # while the runs go on
    assert "runs of a study are going on" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1][:31]) == (130, "interrupted; finished runs are ")
    assert all(runs.is_begun(folder) and not runs.is_finished(folder) for folder in folders)
    before = [rows(folder) for folder in folders]
    wait.unlink()

    assert study(source, "--output-dir", output, "--dry-run") == 0
    assert "static: 1 run of 8 steps (1 interrupted)" in capsys.readouterr().out
    assert study(source, "--output-dir", output, "--workers", 2) == 0
    out = capsys.readouterr().out
    assert all(f"goes on after step {step}" in out for step in before)
    assert "static − none, reward at the end:" in out
    run_here(toy, source, tmp_path / "whole")
    assert all(timeless(folder) == timeless(tmp_path / "whole" / folder.relative_to(output)) for folder in folders)

    table = json.loads((output / "table.json").read_text())
    assert table["arms"]["none"]["measures"]["reward_end"]["values"] == {
        "3": pytest.approx(metrics(folders[0])[-1]["reward/mean"])  # the last fifth of the steps
    }
    assert table["compare"][0]["verdict"] == "too few seeds"
    capsys.readouterr()
    assert study(source, "--output-dir", output) == 0  # nothing is left to do
    assert "started" not in capsys.readouterr().out
    page = (output / "index.html").read_text()
    assert 'href="none/seed-3/report.html"' in page
    assert (output / "none" / "seed-3" / "report.html").exists()
    assert "data:image/svg+xml;base64," in page


@pytest.mark.slow
def test_a_grid_is_tuned_before_its_arm_runs(toy: Toy, tmp_path: Path, capsys) -> None:
    content = values(toy, seeds=[0])
    content["arms"] = {"dynamic": {"grid": {"constraint.beta": [0.01, 3.0]}}}
    content |= {"compare": []}
    content["set"] |= {"trainer.steps": 1}
    source, output = write(tmp_path / "grid.yaml", content), tmp_path / "out"
    assert study(source, "--output-dir", output, "--workers", 2) == 0
    table = json.loads((output / "table.json").read_text())
    means = {point["point"]["constraint.beta"]: point["reward_end"] for point in table["tuning"]["dynamic"]}
    assert list(means) == [0.01, 3.0]
    best = max(means, key=lambda beta: means[beta])
    config = yaml.safe_load((output / "dynamic" / "seed-0" / "config.yaml").read_text())
    assert (config["constraint"]["beta"], config["seed"]) == (best, 0)
    tuned = yaml.safe_load((output / "tuning" / "dynamic" / "3.0" / "seed-100" / "config.yaml").read_text())
    assert (tuned["constraint"]["beta"], tuned["seed"]) == (3.0, 100)
    assert Record.read(output).chosen == {"dynamic": {"constraint.beta": best}}
    assert "Every arm had 2 tuning runs." in (output / "table.md").read_text()
    assert f"`constraint.beta={best}` | {means[best]:.2g}" in (output / "table.md").read_text() or means[best] >= 0.095
    capsys.readouterr()
    assert study(source, "--output-dir", output) == 0  # the folder's record is as it was
    assert "started" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(toy: Toy, tmp_path: Path, capsys) -> None:
    arms = {"bad": {"task.reward": "toy_rewards:not_a_number", "constraint.name": "none"}}
    content = values(toy, arms=arms | {"good": {"constraint.name": "none"}}, tuning=None, seeds=[0], compare=None)
    source, output = write(tmp_path / "bad.yaml", content), tmp_path / "out"
    assert study(source, "--output-dir", output, "--workers", 2) == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("failed: bad seed 0: ")
    assert line.endswith(runs.last_line(output / "bad" / "seed-0.log"))
    assert "Not finished: bad seed 0." in said.out
    table = json.loads((output / "table.json").read_text())
    assert (list(table["arms"]), table["missing"]) == (["good"], ["bad seed 0"])


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle(toy: Toy, tmp_path: Path, wait: Path, capsys) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        content = values(toy, arms={"none": {"constraint.name": "none"}}, tuning=None, seeds=[0], compare=None)
        content["set"] |= LONG
        source, folder = write(tmp_path / "disk.yaml", content), disk / "out" / "none" / "seed-0"
        process = begun(source, "--output-dir", disk / "out")
        wait_for(lambda: rows(folder) >= 2)
        with (disk / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError:
                pass
        wait.unlink()
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert err.splitlines() == [
            f"error: the disk that holds {disk / 'out'} is full; all finished runs and checkpoints are complete: free "
            "some space, then run the same command again"
        ]
        (disk / "ballast").unlink()
        assert study(source, "--output-dir", disk / "out") == 0
        run_here(toy, source, tmp_path / "whole")
        assert timeless(folder) == timeless(tmp_path / "whole" / "none" / "seed-0")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="module")
def finished(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The file and the folder of a study whose runs are finished: one arm, three seeds."""
    home = tmp_path_factory.mktemp("finished")
    content = values(toy, arms={"none": {"constraint.name": "none"}}, tuning=None, seeds=[0, 1, 2], compare=None)
    source = write(home / "one.yaml", content)
    run_here(toy, source, home / "out")
    Record.of(Plan.make(source)).save(home / "out")
    return source, home / "out"


def test_a_rerun_is_inside_the_band_of_its_study(finished, tmp_path: Path, capsys) -> None:
    source, output = finished
    band = tmp_path / "band.yaml"
    assert study(source, "--output-dir", output, "--write-band", band) == 0
    content = yaml.safe_load(band.read_text())
    assert content.keys() == {"schema", "refinerl", "study", "arms", "chosen", "settings"}
    capsys.readouterr()
    assert study(source, "--output-dir", output, "--check", band) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("inside")]
    assert len(lines) == len(content["arms"]["none"]) > 3

    content["arms"]["none"] |= {
        "reward_end": {"mean": 9.0, "se": 0.01, "n": 3},
        "held_out_end": {"mean": 0.5, "se": 0.01, "n": 3},
    }
    band.write_text(yaml.safe_dump(content))
    assert study(source, "--output-dir", output, "--check", band) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "none reward_end" in line] == ["OUTSIDE  none reward_end"]
    assert "missing  none held_out_end: not measured, expected near 0.5" in lines


def test_the_band_that_is_checked_is_not_replaced(finished, tmp_path: Path, capsys) -> None:
    source, output = finished
    band = tmp_path / "band.yaml"
    assert study(source, "--output-dir", output, "--write-band", band) == 0
    before = band.read_text()
    capsys.readouterr()
    assert "would replace the band that --check reads" in refused(
        capsys, source, "--output-dir", output, "--check", band, "--write-band", band
    )
    assert band.read_text() == before


def test_new_seeds_join_the_table(finished, tmp_path: Path, toy: Toy, capsys) -> None:
    source, output = finished
    plan = Plan.make(source, seeds=[7])
    assert toy_run(plan, "none", 7, output) == 0
    assert study(source, "--output-dir", output, "--seeds", "7") == 0
    assert Record.read(output).seeds == (0, 1, 2, 7)
    assert json.loads((output / "table.json").read_text())["arms"]["none"]["seeds"] == [0, 1, 2, 7]


def refused(capsys, *arguments: object) -> str:
    """The sentence with which the command refuses its arguments."""
    assert study(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_another_version_is_not_mixed_in(finished, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    source, output = finished
    monkeypatch.setattr(record, "sources", lambda: "0123456789ab")
    line = refused(capsys, source, "--output-dir", output)
    assert line.startswith(f"error: the runs in {output} were made by refinerl 0.1.0 (sources ")
    assert line.endswith("choose another --output-dir, or run all of them anew with --redo all")
    assert study(source, "--output-dir", output, "--redo", "all", "--dry-run") == 0
    assert "none: 3 runs of 2 steps\n" in capsys.readouterr().out


def test_changed_knobs_of_an_arm_are_named(finished, capsys) -> None:
    source, output = finished
    line = refused(capsys, source, "--output-dir", output, "trainer.steps=3")
    assert line == (
        f"error: arm 'none' has runs in {output} with other knobs (trainer.steps: 2 -> 3): choose another "
        "--output-dir, or run the arm anew with --redo none"
    )
    assert study(source, "--output-dir", output, "trainer.steps=3", "--redo", "none", "--dry-run") == 0


def test_a_run_folder_of_an_older_study_is_refused_by_name(finished, tmp_path: Path, toy: Toy, capsys) -> None:
    source, output = finished
    line = refused(capsys, source, "--output-dir", output / "none")
    assert f"{output / 'none' / 'seed-0'} is a run of an older study" in line
    other = write(tmp_path / "other.yaml", yaml.safe_load(Path(source).read_text()))
    assert "holds the study 'one', not 'other'" in refused(capsys, other, "--output-dir", output)
    strange = output / "none" / "seed-9"
    assert toy_run(Plan.make(source, overrides=["trainer.steps=1"]), "none", 9, output) == 0
    line = refused(capsys, source, "--output-dir", output, "--seeds", "9")
    assert line.startswith(f"error: {strange} is a run of an older study, with trainer.steps: 1 -> 2:")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    assert "letter.txt is there" in refused(capsys, source, "--output-dir", tmp_path / "full")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a study"),
        (["trainer.steps=1"], "name a study"),
        (["missing.yaml"], "the study 'missing.yaml' cannot be read: No such file or directory"),
        (["unheard"], "unknown study 'unheard'"),
        (["{source}", "--arms", "nonne"], "--arms names the unknown arm 'nonne'; closest: none; the arms are none"),
        (["table"], "unknown study 'table'; closest: table1: the studies are"),
        (["ablations"], "unknown study 'ablations'; closest: miniature-ablations: the studies are"),
        (["{source}", "--arms", ""], "--arms names no arm; the arms are none"),
        (["{source}", "--output-dir", "/proc/x"], "cannot create /proc/x: No such file or directory; choose another"),
        (["{source}", "--seeds", "0,x"], "--seeds must be numbers from 0 on, such as 0,1,2, got '0,x'"),
        (["{source}", "--seeds", "1,1"], "--seeds must be different numbers"),
        (["{source}", "seed=3"], "choose seeds with --seeds"),
        (["{source}", "gpus-4"], "'gpus-4' is not an override (key=value)"),
        (["{source}", "trainer.stepz=3"], "arm 'none': unknown key 'trainer.stepz'; closest: trainer.steps"),
        (["{source}", "--redo", "nonne"], "--redo names 'nonne', which is not an arm of this call: choose of none"),
        (["{source}", "--check", "no.json"], "the band no.json cannot be read"),
        (["{source}", "--write-band", "."], "cannot write .: it is a folder"),
        (["{source}", "--write-band", "no/band.yaml"], "there is no folder no"),
        (["{source}", "--output-dir", "{source}"], "is a file: choose another --output-dir"),
    ],
)
def test_bad_input(finished, capsys, arguments: list[str], said: str) -> None:
    words = [word.replace("{source}", finished[0]) for word in arguments]
    output = [] if "--output-dir" in words else ["--output-dir", str(finished[1])]
    assert said in refused(capsys, *words, *output)


def test_a_run_folder_whose_configuration_has_several_mistakes(finished, tmp_path: Path, capsys) -> None:
    source, output = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    values = yaml.safe_load((copy / "none" / "seed-0" / "config.yaml").read_text())
    (copy / "none" / "seed-19").mkdir()
    (copy / "none" / "seed-19" / "config.yaml").write_text(yaml.safe_dump(values | {"gone": 1, "seed": -1}))
    line = refused(capsys, source, "--output-dir", copy, "--seeds", "19")
    assert "is a run of an older study, as its configuration shows (seed: input should be greater than" in line


def test_figures_and_page_without_their_packages(finished, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    source, output = finished
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    (output / "table.md").unlink(missing_ok=True)
    assert study(source, "--output-dir", output) == 0
    out = capsys.readouterr().out
    assert (
        "figures need matplotlib of the extra `report`, which is not installed: pip install 'jinja2>=3' 'matplotlib"
        in out
    )
    assert "pages of studies need jinja2 of the extra `report`, which is not installed: pip install" in out
    assert (output / "table.md").exists()

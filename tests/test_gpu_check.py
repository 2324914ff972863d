"""`make gpu-check`: a line for every check whatever becomes of it, and a rehearsal of those that need no GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gpu_check import bundle, marked_tests, runner
from gpu_check.checks import ALL, Check, Round
from gpu_check.runs import FLOAT32, RUNS, compare
from gpu_check.site import ROOT

ENDS = ("passes", "dies", "hangs", "raises", "finds", "skips")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the runner says of checks that end in every way."""
    folder = tmp_path_factory.mktemp("output")
    checks = tuple(Check(how, "failing_checks", 2 / runner.PATIENCE, (how,)) for how in ENDS)
    wanting = Check("wanting", "failing_checks", 60, ("passes",), rehearsed=False)
    began = time.monotonic()
    assert runner.run_all((Round(2, checks), Round(1, (wanting,))), "cpu", output=folder) == 1
    assert time.monotonic() - began < 30
    assert "printed before it raises" in (folder / "gpu-check.log").read_text()
    return [json.loads(line) for line in (folder / "gpu-check.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("passes", "passed", None),
        ("dies", "failed", "ended with status -9; printed last: printed before it dies"),
        ("hangs", "failed", "took more than 2 s; printed last: printed before it hangs"),
        ("raises", "failed", "RuntimeError: no such thing"),
        ("finds", "failed", "2 is not 3"),
        ("skips", "skipped", "there is no such card"),
        ("wanting", "skipped", "needs a CUDA device"),
    ],
)
@pytest.mark.slow
def test_every_check_has_a_line(lines: list[dict[str, Any]], name: str, outcome: str, reason: str | None) -> None:
    (line,) = (line for line in lines if line.get("check") == name)
    assert line["outcome"] == outcome
    assert reason is None or reason in line["reason"]
    if name in ENDS:
        assert line["facts"][0] == {"said": name, "device": "cpu"}  # what it said before its end is kept


def test_the_last_line_sums_up(lines: list[dict[str, Any]]) -> None:
    assert lines[-1]["summary"]["passed"] == 1
    assert sorted(lines[-1]["summary"]["failed"]) == ["dies", "finds", "hangs", "raises"]
    assert sorted(lines[-1]["summary"]["skipped"]) == ["skips", "wanting"]


def test_what_there_is_no_time_for_has_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = (Round(1, (Check("late", "failing_checks", 60, ("passes",)),)),)
    assert runner.run_all(rounds, "cpu", limit=runner.SHORTEST - 1) == 1
    line, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["check"], line["outcome"]) == ("late", "not reached")
    assert summary["summary"]["not reached"] == ["late"]


def test_where_there_is_no_device_the_others_are_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [Round(1, (Check(how, "failing_checks", 60, (how,)),)) for how in ("despairs", "passes")]
    assert runner.run_all(rounds, "cpu") == 1
    first, second, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["outcome"], second["outcome"], second["reason"]) == ("failed", "not reached", "no card")


def test_metrics_that_differ_too_much_are_named() -> None:
    row = {"reward/mean": 0.5, "policy/entropy": 2.0, "policy/grad_norm": 3.0, "completion/length": 6.0}
    row |= {"policy/loss": 0.0, "constraint/ce": None}
    assert "wrong" not in compare(row, row | {"policy/entropy": 2.0001}, FLOAT32)
    assert (
        "policy/entropy is 2.0 on the device and 2.001 on the CPU"
        in compare(row, row | {"policy/entropy": 2.001}, FLOAT32)["wrong"]
    )
    assert "constraint/ce" in compare(row, row | {"constraint/ce": 1.0}, FLOAT32)["wrong"]
    assert "policy/loss" in compare(row | {"policy/loss": float("nan")}, row, FLOAT32)["wrong"]


@pytest.mark.slow
def test_the_marked_tests_are_found_and_their_failures_named(tmp_path: Path) -> None:
    names = {file.relative_to(ROOT / "tests").as_posix() for file in marked_tests.files()}
    assert {"kernels/test_cuda.py", "kernels/test_cross_entropy.py", "engines/test_torch.py"} <= names
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='no card')\ndef test_not_here(): pass\n"
    )
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={tmp_path / 'report.xml'}", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    (fact,) = marked_tests.read(tmp_path / "report.xml", done.returncode, done.stdout)
    assert (fact["passed"], fact["wrong"]) == (1, "1 failed")
    assert "assert 1 == 2" in fact["failed"]["test_some::test_bad"]
    assert fact["skipped"] == ["test_some::test_not_here"]


@pytest.mark.parametrize(
    ("option", "place", "message"),
    [
        ("--bundle", "nowhere", "there is no folder"),
        ("--bundle", "", "holds no wheels"),
        ("--output", "file/folder", "cannot be made"),
    ],
)
def test_folders_that_will_not_do(tmp_path: Path, option: str, place: str, message: str) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "gpu_check", "--rehearse", option, str(tmp_path / place)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "tests", timeout=20)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_bundle_is_unpacked_where_there_is_no_pip(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "python" / "refinerl").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "bundle" / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "x = 1\n")
    (tmp_path / "bundle" / bundle.CORE).write_bytes(b"new")
    (tmp_path / "python" / "refinerl" / bundle.CORE).write_bytes(b"old")
    found = bundle.unpack(tmp_path / "bundle", tmp_path / "packages", tmp_path / "python")
    assert (found / "thing" / "__init__.py").read_text() == "x = 1\n"
    assert (tmp_path / "python" / "refinerl" / bundle.CORE).read_bytes() == b"new"


def test_what_a_bundle_holds_is_pinned() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert set(bundle.BINARY) | set(bundle.SOURCE) == (pinned & {*bundle.BINARY, *bundle.SOURCE}) | bundle.EXTRA.keys()


REHEARSED = ("environment", "run/dapo", "run/code", "ends", "cross-entropy", "weights", "generation", "step", "sandbox")
"""Of the runs two: the others are runs of the tests too."""


@pytest.mark.slow
def test_the_rehearsal_without_a_gpu(tmp_path: Path) -> None:
    needing = [name for name, check in ALL.items() if not check.rehearsed]
    names = [*REHEARSED, *needing]
    assert {*names} | {f"run/{name}" for name in RUNS} == ALL.keys()
    command = ["make", "-s", "gpu-check", f"PYTHON={sys.executable}", f"OUTPUT={tmp_path}"]
    done = subprocess.run(
        [*command, f"FLAGS=--rehearse --limit 550 --only {' '.join(names)}"], cwd=ROOT, capture_output=True, text=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line in lines if line.get("outcome") == "failed"] == []
    assert done.returncode == 0, done.stderr
    assert sorted(line["check"] for line in lines if line.get("outcome") == "passed") == sorted(REHEARSED)
    assert sorted(line["check"] for line in lines if line.get("reason") == "needs a CUDA device") == sorted(needing)
    assert (tmp_path / "gpu-check.jsonl").read_text() == done.stdout

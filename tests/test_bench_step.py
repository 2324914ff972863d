"""`benches/bench_step.py`: its savings are knobs, its table divides by tokens, and all kinds of contestants run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpu_check import step
from refinerl.run import recipe

FILE = Path(__file__).parents[1] / "benches" / "bench_step.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_step", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["bench_step"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_saving_is_a_knob_that_changes_the_run(bench: ModuleType) -> None:
    for case in bench.CASES.values():
        usual = recipe.load(case.recipe, [*case.overrides, *bench.DYNAMIC])
        for off in bench.SAVINGS.values():
            assert recipe.load(case.recipe, [*case.overrides, *bench.DYNAMIC, off]) != usual, off


def test_every_contestant_of_ours_is_a_valid_run(bench: ModuleType) -> None:
    entered = [contestant for contestant in bench.contestants(None) if contestant.beta is None]
    for case in bench.CASES.values():
        for contestant in entered:
            recipe.load(case.recipe, [*case.overrides, *contestant.overrides])
    assert set(step.OURS) <= {contestant.name for contestant in entered}
    assert step.RIVAL == bench.RIVAL


def test_on_a_gpu_shared_prefixes_are_no_contestant(bench: ModuleType) -> None:
    names = [[contestant.name for contestant in bench.contestants(None, device)] for device in ("cpu", "cuda")]
    assert set(names[0]) - set(names[1]) == {"DAPO + dynamic without: shared prefixes"}


def test_knobs_that_another_checkout_lacks_are_left_out(bench: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "refinerl" / "config").mkdir(parents=True)
    (tmp_path / "refinerl" / "config" / "telemetry.py").write_text("class Config:\n    kl_every: int = 1\n")
    found = [bench.known(tmp_path, word) for word in ("telemetry.kl_every=9", "telemetry.token_costs=0", "task.path=a")]
    assert found == [True, False, True]
    assert all(bench.known(bench.ROOT / "python", word) for word in bench.ON)


def test_the_ratio_is_of_seconds_per_token(bench: ModuleType) -> None:
    ours = [{"step": 2.0, "tokens": 100.0, "host_gib": 1.0}, {"step": 4.0, "tokens": 100.0, "host_gib": 3.0}]
    rival = [{"step": 6.0, "tokens": 400.0, "host_gib": 2.0}]
    *_, first, second = bench.table({"DAPO": ours, bench.RIVAL: rival}).splitlines()
    assert [cell.strip() for cell in first.split("|")][1:3] == ["DAPO", "3.00"]
    assert [cell.strip() for cell in first.split("|")][-4:-1] == ["3.00", "3.00", "2.00"]
    assert second.endswith("| 2.00 | 1.50 | 1.00 |")


@pytest.mark.slow
def test_ours_and_the_rival_take_steps(bench: ModuleType, tmp_path: Path) -> None:
    names = ["DAPO + dynamic", bench.RIVAL]
    if importlib.util.find_spec("trl") is None:
        names.pop()
    command = [sys.executable, str(FILE), "--quick", "--threads", "1", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run([*command, "--only", *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "rows.json").read_text())["miniature"]
    assert list(found) == names
    for rows in found.values():
        (row,) = rows
        assert row["tokens"] > 16
        assert row["host_gib"] > 0
        assert row["step"] >= row["generate"] + row["score"] + row["update"] > 0
        assert min(row["generate"], row["update"]) > 0
    assert found[names[0]][0]["refine"] > 0


def test_an_unknown_contestant_is_refused(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--only", "DAPA"])
    assert "'DAPO'" in capsys.readouterr().err

"""Real trackers hold what metrics.jsonl and rollouts/ hold, over a resumed run, and hostile text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracking
from launching import environment
from refinerl.run.trackers.mlflow import accepted
from toy import Toy, metrics, rollouts

pytestmark = pytest.mark.slow
STEPS = (0, 1, 2, 3, 4)
SERVICES = ("wandb", "trackio", "mlflow")
OWN = ("time/", "memory/")
"""Families whose numbers differ where step 3 is taken a second time; services keep those of the first."""


def needs(name: str) -> None:
    if name not in tracking.installed():
        pytest.skip(f"{name} is an extra: pip install 'refinerl[trackers]'")


@pytest.fixture(scope="module")
def output(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the run, in a process of its own: trackers read their settings when they are imported."""
    folder = tmp_path_factory.mktemp("tracked")
    if not tracking.installed():
        pytest.skip("no tracker is installed: pip install 'refinerl[trackers]'")
    command = [sys.executable, tracking.__file__, str(toy.folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "out").write_text(done.stdout)
    return folder


def found(output: Path, name: str, run: str = "run") -> dict[str, Any]:
    needs(name)
    read: dict[str, Any] = json.loads((output / "found.json").read_text())[name][run]
    return read


def expected(output: Path) -> dict[tuple[int, str], float]:
    """Return the values of metrics.jsonl by step and name."""
    return {
        (row["step"], name): value
        for row in metrics(output / "run")
        for name, value in row.items()
        if name not in ("schema", "step") and value is not None
    }


def test_the_run_is_as_it_should_be(output: Path) -> None:
    assert [row["step"] for row in metrics(output / "run")] == list(STEPS)
    assert (2, "evaluate/reward_low") in expected(output)
    assert "warning" not in (output / "out").read_text()


@pytest.mark.parametrize("name", tracking.NAMES)
def test_metrics(output: Path, name: str) -> None:
    """Each value once: steps that were taken again after the checkpoint are not there twice."""
    seen = found(output, name)["metrics"]
    wanted = expected(output)
    if name == "mlflow":
        ours = {told: mine for mine, told in accepted({mine: 0.0 for _, mine in wanted}).items()}
        seen = [[step, ours[told], value] for step, told, value in seen]
    keys = [(step, metric) for step, metric, _ in seen]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(wanted)
    for step, metric, value in seen:
        if step == 3 and name in SERVICES and metric.startswith(OWN):
            continue
        assert value == pytest.approx(wanted[step, metric], rel=1e-6), (step, metric)  # float32 in TensorBoard


@pytest.mark.parametrize("name", tracking.NAMES)
def test_texts(output: Path, name: str) -> None:
    """Each training step has two responses, of those that gain most by their refinements."""
    seen = found(output, name)["texts"]
    assert sorted({step for step, _ in seen}) == [1, 2, 3, 4]
    for step in (1, 2, 3, 4):
        rows = rollouts(output / "run", step)
        gains = [
            row["refinement"]["reward"]["value"] - row["reward"]["value"]
            for row in rows
            if row["refinement"] and row["refinement"]["reward"]
        ]
        told = [text for at, text in seen if at == step]
        if name == "tensorboard":
            (text,) = told
            blocks = {line.removeprefix("    ") for line in text.split("\n") if line.startswith("    ")}
            assert len([part for part in text.split("\n") if part.startswith("**step ")]) == 2
            assert blocks <= {t for row in rows for t in texts_of(row)}
            continue
        assert len(told) == 2
        cells = [table_row(name, text) for text in told]
        assert max(cell["refined_reward"] - cell["reward"] for cell in cells) == pytest.approx(max(gains))
        for cell in cells:
            (row,) = [r for r in rows if (r["prompt"]["id"], r["sample"]) == (cell["prompt_id"], cell["sample"])]
            assert (cell["question"], cell["y"], cell["refined"]) == texts_of(row)
            assert cell["accepted"] is row["refinement"]["accepted"]


def texts_of(row: dict[str, Any]) -> tuple[str, str, str]:
    refined = row["refinement"]["completion"]["text"] if row["refinement"] else ""
    return row["prompt"]["text"], row["completion"]["text"], refined


def table_row(name: str, text: Any) -> dict[str, Any]:
    """Return the columns of an example."""
    if name != "trackio":
        return dict(text)
    trace = text
    said = trace["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "assistant"]
    names = ("question", "y", "refined")
    return {**trace["metadata"], **{n: m["content"] for n, m in zip(names, said, strict=True)}}


@pytest.mark.parametrize("name", tracking.NAMES)
def test_a_resumed_run_is_one_run(output: Path, name: str) -> None:
    needs(name)
    assert json.loads((output / "found.json").read_text())[name]["runs"] == 2  # and the hostile one


@pytest.mark.parametrize("name", tracking.NAMES)
def test_hostile_text_is_text(output: Path, name: str) -> None:
    ((step, text),) = found(output, name, "hostile")["texts"]
    seen = text if name == "tensorboard" else table_row(name, text)["refined"]
    assert step == 1
    shown = r"</script><b>\x1b[2J\u202e\x07\x00 \udc80"
    assert shown in seen
    assert "\ttab xxx" in seen
    assert "more characters" in seen
    assert len(seen) < 40_000
    assert all(c.isprintable() or c in "\n\t" for c in seen)


def test_mlflow_has_the_knobs_and_the_end(output: Path) -> None:
    read = found(output, "mlflow")
    assert read["params"]["trainer.batch"] == "16"
    assert read["status"] == "FINISHED"
    assert found(output, "mlflow", "hostile")["status"] == "FAILED"

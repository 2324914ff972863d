"""Whole runs with a probe: the refiner is measured in every arm and teaches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toy import Toy, metrics, rollouts, timeless, without_tokens

OPTIONS = ("trainer.minibatch=4", "algorithm.samples_per_prompt=2", "trainer.steps=3")
PROBE = ("refiner.probe=true", "refiner.probe_accept=all")


def learned(folder: Path) -> bytes:
    return (folder / "final" / "model.safetensors").read_bytes()


def bare(folder: Path) -> list[dict[str, Any]]:
    """The metrics without those of the refiner, of targets, and of tokens."""
    beside = ("refiner/", "peer/", "fresh/")
    return [
        {k: v for k, v in row.items() if not k.startswith(beside) and k != "tokens/step"} for row in timeless(folder)
    ]


@pytest.mark.parametrize(
    "arm",
    [
        ["constraint.name=none"],
        ["constraint.name=static", "constraint.apply=loss"],
        ["constraint.name=peer"],
        ["constraint.name=fresh", "constraint.accept=all"],
        ["constraint.name=none", "algorithm.name=ppo"],
        ["constraints=[{name: static, beta: 0.1}, {name: peer, beta: 0.1}]", "lora.rank=2"],
    ],
    ids=lambda arm: arm[0].split("=", 1)[1] + "-" + arm[-1].split("=", 1)[1],
)
def test_a_probe_teaches_nothing(toy: Toy, tmp_path: Path, arm: list[str]) -> None:
    """Weights, rewards, and all metrics but the refiner's are bit for bit those of the run without it."""
    with_, without = tmp_path / "with", tmp_path / "without"
    assert toy.run(with_, *OPTIONS, *arm, *PROBE, "checkpoint.every=100") == 0
    assert toy.run(without, *OPTIONS, *arm, "checkpoint.every=100") == 0
    name = "adapter_model.safetensors" if "lora.rank=2" in arm else "model.safetensors"
    assert (with_ / "final" / name).read_bytes() == (without / "final" / name).read_bytes()
    assert bare(with_) == bare(without)
    for step in (1, 2, 3):
        rows = rollouts(with_, step)
        assert any("probe" in row for row in rows)
        unprobed = [{k: v for k, v in row.items() if k != "probe"} for row in rows]
        assert without_tokens(unprobed) == without_tokens(rollouts(without, step))
    for row, other in zip(metrics(with_), metrics(without), strict=True):
        assert row["refiner/refined"] > 0
        assert row["refiner/improved_ratio"] is not None
        assert (row["refiner/ce"] is not None) == (row["refiner/accepted_fraction"] > 0)
        label = next((name for name in ("peer", "fresh") if name in arm[0]), None)
        if label is not None:
            theirs = {k.removeprefix("refiner/"): v for k, v in other.items() if k.startswith("refiner/")}
            assert theirs == {k.removeprefix(f"{label}/"): v for k, v in row.items() if k.startswith(f"{label}/")}
        else:
            assert not any(k.startswith("refiner/") for k in other)
        own = 0 if label is None else row[f"{label}/tokens"]
        assert (
            row["tokens/step"]
            == row["completion/length"] * len(rollouts(with_, row["step"])) + own + row["refiner/tokens"]
        )


def test_a_probe_measures_what_dynamic_measures(toy: Toy, tmp_path: Path, capsys: Any) -> None:
    """In the first step, before the arms differ; `dynamic` reports its own cross-entropy as constraint/ce."""
    one = ("trainer.steps=1", "trainer.batch=16")
    filtered = ("constraint.accept=all", "constraint.accept_truncated=false")
    assert toy.run(tmp_path / "none", *one, "constraint.name=none", *PROBE) == 0
    out = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "It was a probe: none of this taught the policy." in out
    assert "a probe, which teaches nothing" in out
    assert toy.run(tmp_path / "dynamic", *one, *filtered, "constraint.beta=0.1", "refiner.probe=true") == 0
    assert "refiner.probe=true adds nothing" in capsys.readouterr().out
    (probe,), (dynamic,) = metrics(tmp_path / "none"), metrics(tmp_path / "dynamic")
    assert {k: v for k, v in probe.items() if k.startswith("refiner/") and k != "refiner/ce"} == {
        k: v for k, v in dynamic.items() if k.startswith("refiner/")
    }
    assert probe["refiner/ce"] == pytest.approx(dynamic["constraint/ce"], rel=1e-5)
    written = [row["probe"] for row in rollouts(tmp_path / "none", 1) if "probe" in row]
    assert written == [row["refinement"] for row in rollouts(tmp_path / "dynamic", 1) if row["refinement"]]

    # With β = 0 it teaches nothing either, and its cross-entropy and cost are measured.
    assert toy.run(tmp_path / "zero", *one, *filtered, "constraint.beta=0") == 0
    (zero,) = metrics(tmp_path / "zero")
    assert zero["constraint/ce"] == pytest.approx(dynamic["constraint/ce"], rel=1e-5)
    assert zero["constraint/cost"] == pytest.approx(dynamic["constraint/cost"], rel=1e-5)
    assert zero["constraint/loss"] == 0
    assert learned(tmp_path / "zero") == learned(tmp_path / "none") != learned(tmp_path / "dynamic")


def test_steps_between_probes_have_none(toy: Toy, tmp_path: Path, capsys: Any) -> None:
    arguments = ("constraint.name=none", *PROBE, "refiner.probe_every=2", "trainer.steps=3", "checkpoint.every=1")
    assert toy.run(tmp_path / "run", *arguments) == 0
    assert ["refiner/improved_ratio" in row for row in metrics(tmp_path / "run")] == [True, False, True]
    assert [any("probe" in row for row in rollouts(tmp_path / "run", step)) for step in (1, 2, 3)] == [
        True, False, True
    ]  # fmt: skip

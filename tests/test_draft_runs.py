"""Whole runs with drafts and without: the same refinements, and so the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refinerl import train
from tiny import write_tiny
from toy import Toy, metrics, rollouts, timeless

WORK = ("refiner/tokens_decoded", "refiner/passes", "refiner/draft_accepted")
STEPS = 10


def trained(folder: Path) -> list[dict[str, Any]]:
    """Read the metrics that do not tell how the refiner's engine worked."""
    return [{k: v for k, v in row.items() if k not in WORK} for row in timeless(folder)]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "other", alphabet="hgfedcba zyx", scale=0.3, seed=5)


@pytest.mark.slow
def test_ten_steps_are_the_same(tmp_path: Path) -> None:
    small = (f"trainer.steps={STEPS}", "trainer.batch=16", "trainer.minibatch=16", "evaluate.every=0")
    for name, drafts in (("on", 32), ("off", 0)):
        arguments = ["demo", *small, f"refiner.drafts={drafts}", "--output-dir", str(tmp_path / name)]
        assert train.main(arguments) == 0
    assert trained(tmp_path / "on") == trained(tmp_path / "off")
    for step in range(1, STEPS + 1):
        assert rollouts(tmp_path / "on", step) == rollouts(tmp_path / "off", step)
    on, off = metrics(tmp_path / "on"), metrics(tmp_path / "off")
    for name in ("refiner/passes", "refiner/tokens_decoded"):
        assert sum(row[name] for row in off) > 2 * sum(row[name] for row in on)
    assert all(0 < row["refiner/draft_accepted"] <= 1 for row in on)
    assert all(row["refiner/draft_accepted"] is None for row in off)


@pytest.mark.parametrize("who", ["another vocabulary", "the adapter"])
def test_a_sampled_refiner_of_any_kind_writes_the_same(toy: Toy, other: Path, tmp_path: Path, who: str) -> None:
    refiner = {
        "another vocabulary": [f"refiner.model={other}"],
        "the adapter": ["lora.rank=2", "refiner.source=policy"],
    }
    for name, drafts in (("on", 32), ("off", 0)):
        options = (f"refiner.drafts={drafts}", "constraint.accept=all", *refiner[who])
        assert toy.run(tmp_path / name, *options) == 0
    for step in (1, 2):
        assert rollouts(tmp_path / "on", step) == rollouts(tmp_path / "off", step)
    assert all(row["refiner/draft_accepted"] is not None for row in metrics(tmp_path / "on"))

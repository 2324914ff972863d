"""Whole runs with and without what saves work: nothing that is computed changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from refinerl import train
from refinerl.loop import refiner
from refinerl.loop.measure import Measurer
from refinerl.loop.requests import Requests
from refinerl.loop.update import Updater
from refinerl.tasks.code import CodeTask
from refinerl.tasks.judging import Judging
from toy import Toy, rollouts, timeless, write_problems

STEPS = 10


def without_savings(patch: pytest.MonkeyPatch) -> None:
    """Measures π_old before the update, asks for every refinement, and judges every program at the end."""
    patch.setattr(Updater, "_fresh", Measurer._fresh)
    every = lambda asked, **_: Requests(tuple(range(len(asked))), tuple(range(len(asked))))  # noqa: E731
    patch.setattr(refiner, "distinct", every)
    patch.setattr(CodeTask, "expect", lambda *_: None)
    patch.setattr(Judging, "judge", lambda self, keys, programs: self._box.judge(programs))


def compare(one: Path, other: Path) -> None:
    """Rollouts are equal; weights and metrics are up to the rounding of the pass that π_old is taken from."""
    for step in range(1, STEPS + 1):
        assert rollouts(one, step) == rollouts(other, step)
    own = {"refiner/tokens_decoded", "refiner/passes", "refiner/draft_accepted", "update/constraint_share"}
    for row, expected in zip(timeless(one), timeless(other), strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() - own:
            if expected[name] is None:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=2e-6), name
    (name,) = (path.name for path in (one / "final").glob("*model.safetensors"))
    weights, expected = load_file(one / "final" / name), load_file(other / "final" / name)
    assert all(torch.allclose(weights[key], expected[key], rtol=0, atol=1e-5) for key in expected)


@pytest.mark.parametrize(
    "arm",
    [
        ["constraint.name=dynamic", "constraint.beta=0.1", "trainer.minibatch=4", "algorithm.epochs=2"],
        ["constraint.name=dynamic", "constraint.beta=0.1", "constraint.apply=reward", "refiner.temperature=0"],
        ["constraint.name=static", "telemetry.kl_every=3", "mismatch.correction=token"],
        ["constraint.name=none", "algorithm.name=ppo"],
        ["constraint.name=dynamic", "lora.rank=2", "refiner.temperature=0"],
    ],
    ids=["dynamic", "dynamic-reward", "static", "ppo", "lora"],
)
def test_ten_steps_are_those_without_savings(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: list[str]
) -> None:
    # Where π_old comes from the update's own pass, prefixes that rows share round it; in a pass of its own they do not.
    never = "trainer.share_prefixes=never"
    options = (f"trainer.steps={STEPS}", "checkpoint.every=100", "constraint.accept=all", never, *arm)
    options = tuple(o for o in options if o != "constraint.accept=all" or "constraint.name=dynamic" in arm)
    assert toy.run(tmp_path / "with", *options) == 0
    without_savings(monkeypatch)
    assert toy.run(tmp_path / "without", *options) == 0
    compare(tmp_path / "with", tmp_path / "without")
    ratios = [row["policy/ratio_max"] for row in timeless(tmp_path / "with") if row["policy/ratio_max"] is not None]
    assert ratios
    assert (set(ratios) == {1.0}) == ("algorithm.epochs=2" not in arm)


def test_programs_are_judged_once_with_the_same_verdicts(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["smollm", f"model={toy.folder / 'model'}", f"task.path={write_problems(tmp_path)}", "trainer.batch=8"]
    words += ["generation.max_tokens=2", "algorithm.dynamic_sampling=false", f"trainer.steps={STEPS}"]
    counts: list[Any] = []
    judged = Judging._judged
    monkeypatch.setattr(Judging, "_judged", lambda self, new: counts.append(len(new)) or judged(self, new))
    assert train.main([*words, "--output-dir", str(tmp_path / "with")]) == 0
    assert 0 < sum(counts) < 8 * STEPS
    without_savings(monkeypatch)
    assert train.main([*words, "--output-dir", str(tmp_path / "without")]) == 0
    compare(tmp_path / "with", tmp_path / "without")

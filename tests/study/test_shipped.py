"""The shipped studies as plans: no network is used, nothing is trained."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from refinerl import train
from refinerl.study import file
from refinerl.study.command import main
from refinerl.study.plan import Plan

STUDIES = sorted(file.shipped())
ON_A_GPU = ("gsm8k", "table1")


@cache
def plan_of(name: str) -> Plan:
    return Plan.make(name)


def text_of(name: str) -> str:
    return (resources.files("refinerl") / "recipes" / "studies" / f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_has_the_same_number_of_tuning_runs(name: str) -> None:
    plan = plan_of(name)
    assert len({len(plan.study.arms[arm].points) for arm in plan.arms}) == 1


def test_the_budget_counts_the_runs_that_there_are() -> None:
    """The table in the comment of the first study, whose sum is at most 90 minutes."""
    rows = re.findall(
        r"^#   (miniature\S*) +(\d+) × (\d+) +(?:(\d+) × (\d+)|none) +[\d,]+ +(\d+)$",
        text_of("miniature"),
        re.MULTILINE,
    )
    assert [name for name, *_ in rows] == ["miniature", "miniature-gentle", "miniature-ppo", "miniature-ablations"]
    for name, runs, steps, tuning, tuning_steps, _ in rows:
        plan, study = plan_of(name), plan_of(name).study
        assert len(plan.arms) * len(plan.seeds) == int(runs)
        assert {plan.final(arm, 0, {}).steps for arm in plan.arms} == {int(steps)}
        tries = sum(len(study.arms[arm].points) for arm in plan.arms)
        assert tries * (len(study.tuning.seeds) if study.tuning else 0) == int(tuning or 0)
        assert not study.tuning or study.tuning.knobs["trainer.steps"] == int(tuning_steps)
    (total,) = re.findall(r"^#   all +[\d,]+ +(\d+)$", text_of("miniature"), re.MULTILINE)
    assert sum(int(minutes) for *_, minutes in rows) == int(total) <= 90


def test_the_ceiling_is_sought_at_each_arms_best_rate() -> None:
    """Every arm has the same rates to choose from, and the comment counts the runs that there are."""
    plan = plan_of("miniature-ceiling")
    grids = [plan.study.arms[arm].grid for arm in plan.arms]
    assert len({tuple(grid["trainer.learning_rate"]) for grid in grids}) == 1
    tuning = [trial for arm in plan.arms for trial in plan.tuning(arm)]
    finals = [plan.final(arm, seed, {}) for arm in plan.arms for seed in plan.seeds]
    ((runs, steps, tries, fewer),) = re.findall(
        r"^#   (\d+) × (\d+) +(\d+) × (\d+) ", text_of("miniature-ceiling"), re.MULTILINE
    )
    assert (len(finals), {trial.steps for trial in finals}) == (int(runs), {int(steps)})
    assert (len(tuning), {trial.steps for trial in tuning}) == (int(tries), {int(fewer)})
    for trial in (*tuning, *finals):
        config = trial.config
        assert config.model == "miniature-far"
        assert (config.task.path, config.evaluate.path) == ("shipped:miniature-far", "shipped:miniature-far-held-out")


def test_both_rates_have_the_arms_that_are_compared_at_their_best_rate() -> None:
    edge, gentle = plan_of("miniature"), plan_of("miniature-gentle")
    for arm in gentle.arms:
        here, there = edge.final(arm, 0, {}).config, gentle.final(arm, 0, {}).config
        assert here.constraint == there.constraint
        assert here.trainer.learning_rate == 3 * there.trainer.learning_rate
        assert (here.trainer.steps, edge.seeds) == (there.trainer.steps, gentle.seeds)


@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_study_for_gpus_fits_on_the_card_of_its_comment(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(name)
    largest = 0.0
    for arm in plan.arms:
        assert train.main([*plan.final(arm, 0, {}).arguments, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "\n#   fits\n" in out
        assert "a card of 47.5" in out
        largest = max(largest, float(re.findall(r"([\d.]+) +\d+ %  largest", out)[0]))
    assert f"{largest:.0f} GiB of a card of 48 GB" in text_of(name)


def test_a_dry_run_lists_the_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gsm8k", "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{arm}: " in out for arm in plan_of("gsm8k").arms)
    assert not (tmp_path / "out").exists()

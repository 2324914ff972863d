"""Plans: the words of each run, and what is refused before the first run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinerl.errors import UserError
from refinerl.study.plan import Plan
from studying import GOOD

TUNED = GOOD.replace("trainer.steps: 3}", "trainer.steps: 3, measure: reward_end}").replace(
    ", trainer.epochs: [1, 2]", ""
)


def made(folder: Path, text: str = TUNED, **choice) -> Plan:
    (folder / "good.yaml").write_text(text)
    return Plan.make(str(folder / "good.yaml"), **choice)


def test_the_runs_of_a_plan(tmp_path: Path) -> None:
    plan = made(tmp_path, overrides=["trainer.batch=8"])
    assert (plan.name, plan.arms, plan.seeds) == ("good", ("none", "dynamic"), (0, 1))
    final = plan.final("dynamic", 1, {"constraint.beta": 0.3})
    assert final.arguments == ("smollm", "trainer.steps=4", "constraint.beta=0.3", "trainer.batch=8", "seed=1")
    assert (final.config.constraint.beta, final.config.trainer.batch, final.config.seed) == (0.3, 8, 1)
    assert (str(final.folder), final.name, final.steps) == ("dynamic/seed-1", "dynamic seed 1", 4)
    assert plan.tuning("none") == []
    tuning = plan.tuning("dynamic")
    assert [str(trial.folder) for trial in tuning][1:3] == [
        "tuning/dynamic/0.01/seed-101",
        "tuning/dynamic/0.3/seed-100",
    ]
    assert (tuning[0].steps, tuning[0].config.constraint.beta, tuning[0].config.seed) == (3, 0.01, 100)
    assert tuning[0].name == "dynamic constraint.beta=0.01 seed 100"


def test_differences_from_the_recipe(tmp_path: Path) -> None:
    plan = made(tmp_path)
    assert plan.differences("dynamic") == ["constraint.beta: 0.01 -> 0.001", "trainer.steps: 6 -> 4"]


def test_a_recipe_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: smollm\ntrainer: {learning_rate: 3e-4}\n")
    plan = made(tmp_path, TUNED.replace("recipe: smollm", "recipe: mine.yaml gpus-2"))
    trial = plan.final("none", 0, {})
    assert trial.arguments[:2] == (str(tmp_path / "mine.yaml"), "gpus-2")
    assert trial.config.trainer.learning_rate == 3e-4


def test_paths_are_relative_to_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "refine.txt").touch()
    text = TUNED.replace(
        "{trainer.steps: 4}", "{trainer.steps: 4, task.path: rows.jsonl, refiner.template: refine.txt}"
    )
    monkeypatch.chdir(tmp_path.parent)
    config = made(tmp_path, text).final("none", 0, {}).config
    assert getattr(config.task, "path") == str(tmp_path / "rows.jsonl")  # noqa: B009
    assert config.refiner.template == str(tmp_path / "refine.txt")
    with pytest.raises(UserError, match=r"arm 'none': task.path = other.jsonl is relative to .*good.yaml"):
        made(tmp_path, text.replace("rows.jsonl", "other.jsonl"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("recipe: smollm", "recipe: smollmm", "arm 'none': unknown recipe 'smollmm'; closest: smollm"),
        (
            "recipe: smollm",
            "recipe: smollm gpus-3",
            "arm 'none': 'gpus-3' is neither an override (key=value) nor a part",
        ),
        ("constraint.name: none", "constraint.nam: none", "arm 'none': unknown key 'constraint.nam'"),
        ("1e-2, 0.3", "1e-2, -1", "arm 'dynamic': constraint.beta: input should be greater than or equal to 0"),
        ("measure: reward_end", "measure: held_out_end", "arm 'dynamic': its tuning goes by held_out_end, so it needs"),
        ("{trainer.steps: 4}", "{trainer.steps: none}", "arm 'none': trainer.steps: input should be a valid integer"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert TUNED.count(old) == 1
    with pytest.raises(UserError) as refused:
        made(tmp_path, TUNED.replace(old, new))
    assert str(refused.value).startswith(said)


def test_seeds_of_the_tuning_are_not_the_studys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--seeds has 100, which is a seed of the tuning: choose others"):
        made(tmp_path, seeds=[5, 100])
    assert made(tmp_path, seeds=[5]).seeds == (5,)

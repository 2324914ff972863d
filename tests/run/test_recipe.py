"""From a recipe's name and overrides to a configuration, or to a calm message."""

from pathlib import Path

import pytest

from refinerl.config import Config
from refinerl.errors import UserError
from refinerl.run import recipe


def refused(name, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        recipe.load(name, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", recipe.recipes())
def test_every_shipped_recipe_is_valid_and_says_what_it_is(name):
    assert isinstance(recipe.load(name), Config)
    assert len(recipe.recipes()[name]) > 20


def test_overrides_reach_their_knob():
    config = recipe.load("smollm", ["constraint.beta=3e-4", "trainer.steps=2", "trainer.micro_batch=null"])
    assert (config.constraint.beta, config.trainer.steps, config.trainer.micro_batch) == (3e-4, 2, None)


def test_a_resolved_configuration_is_a_recipe_of_itself(tmp_path):
    config = recipe.load("smollm", ["constraint.name=static", "trainer.learning_rate=1e-6"])
    (tmp_path / "saved.yaml").write_text(recipe.to_yaml(config))
    assert recipe.load(str(tmp_path / "saved.yaml")) == config


def test_mistakes_are_named_with_what_would_work():
    assert "closest: smollm" in refused("smolm")
    assert "trainer.steps" in refused("smollm", "trainer.stepz=2")
    assert "it is trainer.learning_rate here" in refused("smollm", "trainer.lr=1")
    assert "it is constraint.beta with constraint.name=static" in refused("smollm", "beta=1")
    assert "closest: constraint.name" in refused("smollm", "constraint.nam=none")
    assert "trainer.steps" in refused("smollm", "trainer.steps=many")
    assert refused("smollm", "trainer.steps=0") == "trainer.steps: input should be greater than or equal to 1, got 0"
    assert "key=value" in refused("smollm", "trainer.steps")
    assert "dynamic, fresh, none, peer, static or module:Class" in refused("smollm", "constraint.name=kl")
    assert "cannot be read" in refused("nowhere.yaml")
    assert "constraint.estimator must be k2 or k3" in refused(
        "smollm", "constraint.name=static", "constraint.apply=loss", "constraint.estimator=k1"
    )


def test_several_mistakes_begin_with_their_number():
    lines = refused("smollm", "trainer.stepz=2", "seed=-1", "constraint.name=kl").splitlines()
    assert lines[0] == "3 mistakes:"
    assert [line[:9] for line in lines[1:]] == ["  seed: i", "  constra", "  unknown"]
    assert refused("smollm", "trainer.betas=[a,b]").startswith("2 mistakes:\n  trainer.betas.0: ")


@pytest.mark.parametrize("value", ["3", "[1,2]", "{a: b}"])
@pytest.mark.parametrize("task", ["code", "dialogue"])
def test_a_reward_that_is_no_name_is_one_mistake(task, value):
    said = refused("smollm", f"task.name={task}", "task.path=x", f"task.reward={value}")
    assert said.startswith("task.reward must be a name, or a list of names such as [a:b,c:d], got ")
    assert "\n" not in said


def test_a_recipe_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("trainer: [1,")
    assert str(path) in refused(str(path))
    path.write_text("- 1\n- 2\n")
    assert "mapping" in refused(str(path))


def test_recipes_of_ones_own_may_be_laid_over_others(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: [apps-ppo-static, shared.yaml]\ntrainer: {steps: 3}\n")
    (tmp_path / "shared.yaml").write_text("let: {rate: 5e-6}\ntrainer: {steps: 9, learning_rate: '${let.rate}'}\n")
    config = recipe.load(str(tmp_path / "mine.yaml"), ["gpus-4", "constraint.beta=2"])
    assert (config.trainer.steps, config.trainer.learning_rate, config.trainer.micro_batch) == (3, 5e-6, 4)
    assert (config.constraint.name, config.constraint.beta) == ("static", 2)
    assert recipe.load("smollm", [str(tmp_path / "shared.yaml")]).trainer.steps == 9


def test_mistakes_in_what_a_recipe_is_made_of(tmp_path):
    known = "the parts are apps, batch-512, gpus, gpus-1, gpus-2, gpus-4, gpus-8, openrlhf"
    assert known in refused("apps-dapo", "gpus-5")
    assert "closest: apps" in refused("app-dapo")
    path = tmp_path / "mine.yaml"
    path.write_text("base: mine.yaml\n")
    assert "its own base" in refused(str(path))
    path.write_text("base: nothing\n")
    assert "unknown recipe 'nothing'" in refused(str(path))
    for wrong in ("{a: 1}", "3", "[apps, 3]"):
        path.write_text(f"base: {wrong}\n")
        assert "base must be a name or a list of names" in refused(str(path))
    assert "'gpus-4' is a part, and a recipe comes before its parts: apps-dapo gpus-4" in refused("gpus-4")
    assert "a recipe comes before its parts: smollm gpus-2" in refused("gpus-2", "smollm")
    assert "'apps-dapo' is a recipe, and so is 'smollm': name one of them" in refused("smollm", "apps-dapo")
    path.write_text("trainer: {steps: '${let.none}'}\n")
    assert "none" in refused(str(path))


def test_differences_name_the_knobs():
    old, new = recipe.load("smollm"), recipe.load("smollm", ["constraint.beta=0.5", "seed=3"])
    assert recipe.differences(old, new) == ["seed: 0 -> 3", "constraint.beta: 0.01 -> 0.5"]
    assert recipe.differences(old, old) == []


@pytest.mark.parametrize("word", ["task.reward=my_rewards:", "task.reward.name=x", "task.reward={a: 1}"])
def test_a_mapping_over_a_list_is_refused(tmp_path: Path, word: str):
    mine = tmp_path / "mine.yaml"
    mine.write_text("task: {name: dialogue, path: x.jsonl, reward: ['a:b', 'c:d']}\n")
    with pytest.raises(UserError, match=r"^task\.reward is a list in one place and a mapping in another: "):
        recipe.load(str(mine), [word])

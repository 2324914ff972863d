"""The options of the task, the algorithm and the constraint, by the class that each names."""

import sys
from types import ModuleType

import pytest

from refinerl.config import Config
from refinerl.tasks import Task
from refinerl.tasks.dialogue import DialogueTask


def test_defaults_follow_the_algorithm():
    dapo, ppo = Config(algorithm={"name": "dapo"}), Config(algorithm={"name": "ppo"})
    assert (dapo.algorithm.samples_per_prompt, dapo.algorithm.clip_low, dapo.algorithm.clip_high) == (8, 0.2, 0.3)
    assert (ppo.algorithm.samples_per_prompt, ppo.algorithm.clip_low, ppo.algorithm.clip_high) == (1, 0.2, 0.2)


def test_defaults_follow_the_constraint():
    static = Config(constraint={"name": "static"}).constraint
    assert (static.apply, static.estimator, static.reduction) == ("reward", "k1", "token")
    dynamic = Config(constraint={"name": "dynamic"}).constraint
    assert (dynamic.apply, dynamic.reduction, dynamic.accept) == ("loss", "sequence", "better")
    assert Config(constraint={"name": "none", "beta": 3}).constraint.beta == 0
    assert Config(constraint={"name": "static", "apply": "loss"}).constraint.estimator == "k2"
    assert Config().constraint.penalty_in_group == "before"


def test_a_task_has_the_options_of_its_class():
    code = Config().task
    assert (code.name, code.reward, code.embedded, code.rewards) == ("code", "adaptive", "all", ("adaptive",))
    dialogue = Config(task={"name": "dialogue", "path": "x", "reward": ["model", "rule:answer"], "embedded": "easy"},
                      reward_model={"model": "m"}).task  # fmt: skip
    assert isinstance(dialogue, DialogueTask.Options)
    assert dialogue.rewards == ("model", "rule:answer")
    assert "embedded" not in dialogue.model_dump()  # the code task's, as the default recipe says it


def test_only_rules_have_a_highest_reward():
    def options(*rewards, weights=()):
        return DialogueTask.Options(path="x", reward=rewards, reward_weights=weights)

    assert (options("rule:answer").max_reward, options("rule:answer").bounded) == (1.0, True)
    assert options("rule:answer", "rule:matches", weights=[2, 0.5]).max_reward == 2.5
    assert not options("rule:answer", "rule:matches", weights=[2, -0.5]).bounded
    assert (options("rule:answer", "mine:f").max_reward, options("mine:f").bounded) == (None, False)


def test_the_path_of_a_recipe_is_not_that_of_a_task_of_ones_own(monkeypatch):
    class Reader(Task):
        class Options(Task.Options):
            path: str = "mine.txt"

        def examples(self):
            return []

        def reward(self, known, answer):
            return 0.0

    module = ModuleType("a_reader")
    module.Reader = Reader
    monkeypatch.setitem(sys.modules, "a_reader", module)
    recipe = {"name": "a_reader:Reader", "path": "hub:codeparrot/apps", "reward": "adaptive", "system": "Hi"}
    task = Config(task=recipe).task
    assert (task.path, task.system, task.rewards) == ("mine.txt", "Hi", ())
    own = Config(task={**recipe, "options": {"path": "other.txt"}})
    assert own.task.path == "other.txt"
    dumped = own.model_dump(mode="json")["task"]
    assert dumped == {
        "name": "a_reader:Reader", "max_prompt_tokens": None, "system": "Hi", "options": {"path": "other.txt"}
    }  # fmt: skip
    assert Config(task=dumped).task == own.task


@pytest.mark.parametrize(
    "own",
    [
        {"name": "code", "embedded": "trivial"},
        {"name": "code", "path": "problems.jsonl", "reward": "coarse", "prompt_format": "apps", "max_tests": 3},
        {"name": "dialogue", "path": "x", "reward": ["rule:answer", "mine:f"], "reward_weights": [1, 2], "column": "c",
         "prompt_format": "chat"},
        {"name": "dialogue", "path": "x", "reward": "rule:answer", "prompt_format": "text", "system": "Hi"},
    ],
)  # fmt: skip
def test_a_file_of_an_earlier_version_has_the_knobs_of_both_tasks(own):
    earlier = {
        "path": None, "reward": "adaptive", "reward_weights": [], "column": None, "split": "train",
        "max_prompt_tokens": None, "template": None, "system": None, "max_tests": None, "difficulty": None,
        "embedded": "all", "prompt_format": "chat", "options": {},
    }  # fmt: skip
    assert Config(task=earlier | own).task == Config(task=own).task


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("apply", ["loss", "reward"])
@pytest.mark.parametrize("name", ["none", "static", "dynamic", "fresh"])
@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_every_combination_of_the_comparison_is_valid(algorithm, name, apply, reduction):
    Config(algorithm={"name": algorithm}, constraint={"name": name, "apply": apply, "reduction": reduction})

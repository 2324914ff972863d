"""Defaults that follow from other knobs: resolved once, so that nobody downstream has to default again."""

from typing import get_args

import pytest

from refinerl.config import Config
from refinerl.contracts.options import Section, default_of
from refinerl.run import recipe
from refinerl.run.arguments import knobs

OPTIONAL = {
    "chat_template": "the tokenizer has one",
    "chat_template_date": "the day on which the run begins",
    "device_memory": "the card that is here",
    "task.path": "the embedded problems",
    "task.column": "the first of several that is there",
    "task.subset": "the data set has one",
    "task.max_prompt_tokens": "the model's context decides",
    "task.template": "the task's own",
    "task.system": "none",
    "task.max_tests": "no limit",
    "task.difficulty": "all",
    "reward_model.model": "none",
    "reward_model.max_length": "the model's context decides",
    "reward_model.normalize": "the model's config.json decides",
    "reward_model.chat_template": "the tokenizer has one",
    "refiner.model": "no other model",
    "refiner.chat_template": "the tokenizer has one",
    "refiner.template": "the task's own",
    "refiner.url": "no server",
    "refiner.api_key_env": "no key",
    "trainer.epochs": "no limit",
    "trainer.micro_batch": "no limit",
    "vllm.max_model_len": "the model's context decides",
    "telemetry.run_name": "the last part of --output-dir",
    "evaluate.path": "a benchmark is run",
    "evaluate.split": "as task.split",
    "evaluate.subset": "as task.subset",
    "evaluate.data": "downloaded as published",
    "evaluate.limit": "all",
    "plan.card": "no card is named",
    "plan.card_gib": "no card is named",
}
"""Knobs for which None is a value, and what it means: nothing that the configuration knows."""


def walk(section: Section, prefix: str = ""):
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def test_none_is_a_value_of_these_knobs_alone():
    configs = Config(), Config(task={"name": "dialogue", "path": "x", "reward": "rule:answer"})
    fields = [pair for config in configs for pair in walk(config)]
    optional = {key for key, field, _ in fields if type(None) in get_args(field.annotation)}
    assert optional == set(OPTIONAL)


@pytest.mark.parametrize("name", recipe.recipes())
@pytest.mark.slow
def test_a_resolved_recipe_has_a_value_for_every_other_knob(name):
    for overrides in ([], ["gpus-2"]):
        found = dict.fromkeys(key for key, _, value in walk(recipe.load(name, overrides)) if value is None)
        assert set(found) <= set(OPTIONAL)


def test_a_knob_that_nobody_sets_has_the_value_of_the_knob_it_follows():
    config = Config(
        model="a",
        dtype="bfloat16",
        device="cpu",
        generation={"max_tokens": 7},
        trainer={"batch": 24},
        lora={"rank": 3},
        algorithm={"overlong_cache": 0},
    )
    assert (config.refiner.max_tokens, config.trainer.minibatch, config.lora.alpha) == (7, 24, 6)
    assert (config.critic.model, config.reward_model.dtype, config.reward_model.device) == ("a", "bfloat16", "cpu")
    assert recipe.validate(config.model_dump(mode="json")) == config


def test_a_knob_that_is_set_keeps_its_value():
    config = Config(
        refiner={"max_tokens": 5},
        trainer={"batch": 24, "minibatch": 8},
        lora={"rank": 3, "alpha": 1},
        critic={"model": "b"},
        reward_model={"dtype": "bfloat16", "device": "cuda:1"},
    )
    assert (config.refiner.max_tokens, config.trainer.minibatch, config.lora.alpha) == (5, 8, 1)
    assert (config.critic.model, config.reward_model.dtype, config.reward_model.device) == ("b", "bfloat16", "cuda:1")
    assert Config(reward_model={"device": "auto"}, device="cpu").reward_model.device == "cpu"


def test_none_leaves_a_knob_to_its_default_as_files_of_earlier_versions_have_it():
    earlier = {
        "refiner": {"max_tokens": None},
        "critic": {"model": None},
        "sandbox": {"workers": None},
        "vllm": {"memory_policy": None},
        "plan": {"gpus": None},
    }
    assert Config(**earlier) == Config()


def test_a_share_that_nobody_sets_counts_as_its_default(refused):
    assert "must sum to at most 1, got 1.1" in refused(vllm={"memory_policy": 0.8, "sleep": False})


def test_help_shows_which_knob_a_default_follows():
    shown = {line.split()[0] for line in knobs() if line.startswith("  ")}
    assert {"refiner.max_tokens=generation.max_tokens", "critic.model=model", "lora.alpha=2"} <= shown
    sources = {source for _, field, _ in walk(Config()) if (source := default_of(field))}
    assert {source for source in sources if " " not in source} <= {key for key, _, _ in walk(Config())}

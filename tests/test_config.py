"""Every rule of the configuration: what is resolved, what is refused."""

import pytest
from pydantic import ValidationError

from refinerl.config import Config


def refused(**sections) -> str:
    with pytest.raises(ValidationError) as caught:
        Config(**sections)
    return str(caught.value)


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


def test_resolving_one_configuration_leaves_the_defaults_alone():
    Config(generation={"max_tokens": 7})
    assert Config().refiner.max_tokens == 512
    assert Config(generation={"max_tokens": 7}).refiner.max_tokens == 7


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("apply", ["loss", "reward"])
@pytest.mark.parametrize("name", ["none", "static", "dynamic"])
@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_every_combination_of_the_comparison_is_valid(algorithm, name, apply, reduction):
    Config(algorithm={"name": algorithm}, constraint={"name": name, "apply": apply, "reduction": reduction})


def test_invalid_combinations_are_refused():
    assert "k2 or k3" in refused(constraint={"name": "static", "apply": "loss", "estimator": "k1"})
    assert "at least 2" in refused(algorithm={"name": "dapo", "samples_per_prompt": 1})
    assert "on_dropped" in refused(constraint={"name": "dynamic", "apply": "reward", "on_dropped": True})
    assert "on_dropped" in refused(constraint={"on_dropped": True}, algorithm={"name": "ppo"})
    assert "on_dropped" in refused(constraint={"on_dropped": True}, algorithm={"dynamic_sampling": False})
    assert "multiple" in refused(trainer={"batch": 12})
    assert "divide" in refused(trainer={"batch": 64, "minibatch": 24})
    assert "overlong_cache" in refused(algorithm={"overlong_cache": 512})
    assert "task.path" in refused(task={"name": "dialogue"})
    assert "module:function" in refused(task={"name": "dialogue", "path": "x"})
    assert "reward_model.model" in refused(task={"name": "dialogue", "path": "x", "reward": "model"})
    assert "highest value" in refused(task={"reward": "m:f"}, constraint={"accept": "perfect"})
    assert "adaptive, coarse" in refused(task={"reward": "fine"})


def test_values_out_of_range_are_refused():
    for sections in (
        {"trainer": {"steps": 0}},
        {"trainer": {"learning_rate": 0}},
        {"trainer": {"learning_rate": float("nan")}},
        {"generation": {"temperature": 0}},
        {"algorithm": {"lam": 1.5}},
        {"sandbox": {"memory_mb": -1}},
        {"seed": -1},
        {"surprise": 1},
    ):
        refused(**sections)


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("train_batch_size", 8, "trainer.batch"),
        ("train_micro_batch_size_per_gpu", 2, "trainer.micro_batch"),
        ("gradient_accumulation_steps", 2, "trainer.minibatch"),
        ("gradient_clipping", 1.0, "trainer.max_grad_norm"),
        ("optimizer", {"type": "Adam"}, "trainer.learning_rate"),
        ("scheduler", {"type": "WarmupLR"}, "trainer.schedule"),
        ("fp16", {"enabled": True}, "deepspeed.bf16.enabled=true"),
    ],
)
def test_what_the_recipe_says_is_refused_inside_deepspeeds_configuration(key, value, ours):
    message = refused(deepspeed={key: value})
    assert f"deepspeed.{key} must be left out" in message
    assert ours in message


def test_deepspeeds_own_configuration_passes():
    native = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "bf16": {"enabled": True}}
    native["activation_checkpointing"] = {"partition_activations": True}
    assert Config(deepspeed=native).deepspeed == native
    assert "stage must be 0, 1, 2 or 3, got 4" in refused(deepspeed={"zero_optimization": {"stage": 4}})
    assert "stage must be 1, 2 or 3" in refused(deepspeed={"bf16": {"enabled": True}})


def test_what_learns_in_bfloat16_has_a_zero_stage_with_float32_weights():
    half = {"dtype": "bfloat16", "engines": {"trainer": "deepspeed"}}
    assert Config(**half).deepspeed == {"zero_optimization": {"stage": 1}}
    assert Config(**half, deepspeed={"zero_optimization": {"stage": 3}}).deepspeed["zero_optimization"]["stage"] == 3
    assert "stage must be 1, 2 or 3 with dtype=bfloat16, got 0" in refused(
        **half, deepspeed={"zero_optimization": {"stage": 0}}
    )
    assert Config(dtype="bfloat16").deepspeed == Config(engines={"trainer": "deepspeed"}).deepspeed == {}
    assert "bf16.enabled must be true or left out" in refused(**half, deepspeed={"bf16": {"enabled": False}})
    adapter = {**half, "lora": {"rank": 8}}
    assert Config(**adapter).deepspeed == {}
    assert Config(**adapter, algorithm={"name": "ppo"}).deepspeed == {"zero_optimization": {"stage": 1}}

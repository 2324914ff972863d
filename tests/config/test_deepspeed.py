"""DeepSpeed's own section: what passes, and what belongs to other knobs."""

import pytest

from refinerl.config import Config


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
def test_what_the_recipe_says_is_refused_inside_deepspeeds_configuration(refused, key, value, ours):
    message = refused(deepspeed={key: value})
    assert f"deepspeed.{key} must be left out" in message
    assert ours in message


def test_deepspeeds_own_configuration_passes(refused):
    native = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "bf16": {"enabled": True}}
    native["activation_checkpointing"] = {"partition_activations": True}
    assert Config(deepspeed=native).deepspeed == native
    assert "stage must be 0, 1, 2 or 3, got 4" in refused(deepspeed={"zero_optimization": {"stage": 4}})
    assert "stage must be 1, 2 or 3" in refused(deepspeed={"bf16": {"enabled": True}})


def test_what_learns_in_bfloat16_has_a_zero_stage_with_float32_weights(refused):
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

"""Checks of the section `deepspeed`, DeepSpeed's own configuration, against the other knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refinerl.config import Config

OURS_IN_DEEPSPEED = {
    "train_batch_size": "trainer.batch and trainer.minibatch",
    "train_micro_batch_size_per_gpu": "trainer.micro_batch or trainer.micro_batch_tokens",
    "gradient_accumulation_steps": "trainer.minibatch and trainer.micro_batch_tokens, which determine it",
    "managed_gradient_accumulation": "trainer.minibatch and trainer.micro_batch_tokens",
    "gradient_clipping": "trainer.max_grad_norm",
    "optimizer": "trainer.learning_rate, trainer.betas and trainer.weight_decay",
    "scheduler": "trainer.schedule, trainer.warmup and trainer.min_learning_rate",
    "fp16": "deepspeed.bf16.enabled=true",
    "amp": "deepspeed.bf16.enabled=true",
}
"""Keys of DeepSpeed's configuration that are refused, and the knobs to use in their place."""


def check_deepspeed(config: Config) -> None:
    """Refuse settings under which training would go wrong, and set the ZeRO stage if none is given.

    Raises:
        ValueError: a key belongs to another knob, or two knobs contradict each other.
    """
    for key in config.deepspeed:
        if key in OURS_IN_DEEPSPEED:
            raise ValueError(f"deepspeed.{key} must be left out: use {OURS_IN_DEEPSPEED[key]}")
    for key in ("bf16", "data_types"):
        if not isinstance(given := config.deepspeed.get(key, {}), dict):
            example = {"bf16": "enabled=true", "data_types": "grad_accum_dtype=fp32"}[key]
            raise ValueError(f"deepspeed.{key} must hold keys of its own, as deepspeed.{key}.{example}, got {given!r}")
    zero = config.deepspeed.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ValueError(
            "deepspeed.zero_optimization must hold keys of its own, as deepspeed.zero_optimization.stage=3, "
            f"got {zero!r}"
        )
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"deepspeed.zero_optimization.stage must be 0, 1, 2 or 3, got {stage!r}")
    bf16 = config.deepspeed.get("bf16", {})
    if stage == 0 and isinstance(bf16, dict) and bf16.get("enabled"):
        raise ValueError("deepspeed.zero_optimization.stage must be 1, 2 or 3 with deepspeed.bf16, got 0")
    # A LoRA adapter is trained in float32, but a critic trains all of its weights in dtype.
    whole = not config.lora.rank or config.needs_critic
    if config.engines.trainer == "deepspeed" and config.dtype == "bfloat16" and stage == 0 and whole:
        if "stage" in zero:
            raise ValueError(
                "deepspeed.zero_optimization.stage must be 1, 2 or 3 with dtype=bfloat16, got 0: at stage 0 "
                "DeepSpeed keeps no float32 weights, and small updates would be rounded away"
            )
        config.deepspeed = {**config.deepspeed, "zero_optimization": {**zero, "stage": 1}}
    if config.dtype == "bfloat16" and isinstance(bf16, dict) and not bf16.get("enabled", True):
        raise ValueError(
            "deepspeed.bf16.enabled must be true or left out with dtype=bfloat16, got false: DeepSpeed "
            "would then apply gradients that are not finite"
        )
    if config.engines.offload_reference and config.lora.rank:
        raise ValueError(
            "engines.offload_reference must be false if lora.rank is above 0: the reference is the policy's own "
            "model without its adapter"
        )
    if config.engines.offload_reference and config.engines.generator == "vllm" and stage == 3:
        raise ValueError(
            "engines.offload_reference must be false if ZeRO-3 partitions the reference, as it does with "
            "engines.generator=vllm: deepspeed.zero_optimization.offload_param.device=cpu keeps it on the host"
        )

"""Names of knobs in TRL, OpenRLHF and verl, for messages about unknown keys; docs/names.md has the whole table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYNONYMS = {
    "actor_learning_rate": "trainer.learning_rate",
    "adv_estimator": "algorithm.name",
    "batch_size": "trainer.batch, in responses",
    "bf16": "dtype=bfloat16",
    "clip_ratio": "algorithm.clip_low and algorithm.clip_high",
    "clip_ratio_high": "algorithm.clip_high",
    "clip_ratio_low": "algorithm.clip_low",
    "critic_learning_rate": "critic.learning_rate",
    "dataset": "task.path",
    "dataset_name": "task.path",
    "entropy_coeff": "algorithm.entropy_bonus",
    "eps_clip": "algorithm.clip_low and algorithm.clip_high",
    "epsilon": "algorithm.clip_low",
    "epsilon_high": "algorithm.clip_high",
    "eval_steps": "evaluate.every",
    "generate_max_len": "generation.max_tokens",
    "gpu_memory_utilization": "vllm.memory_policy",
    "grad_clip": "trainer.max_grad_norm",
    "gradient_accumulation_steps": "trainer.minibatch and trainer.micro_batch, which determine it",
    "init_kl_coef": "constraint.beta with constraint.name=static",
    "input_key": "task.column",
    "kl_coef": "constraint.beta with constraint.name=static",
    "kl_loss_coef": "constraint.beta with constraint.name=static and constraint.apply=loss",
    "lambd": "algorithm.lam",
    "lora_alpha": "lora.alpha",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lr": "trainer.learning_rate",
    "lr_scheduler_type": "trainer.schedule",
    "lr_warmup_ratio": "trainer.warmup",
    "max_completion_length": "generation.max_tokens",
    "max_length": "generation.max_tokens",
    "max_new_tokens": "generation.max_tokens",
    "max_prompt_length": "task.max_prompt_tokens",
    "max_response_length": "generation.max_tokens",
    "max_steps": "trainer.steps",
    "micro_train_batch_size": "trainer.micro_batch",
    "mini_batch_size": "trainer.minibatch",
    "model_name": "model",
    "model_name_or_path": "model",
    "n_samples_per_prompt": "algorithm.samples_per_prompt",
    "num_episodes": "trainer.epochs",
    "num_generations": "algorithm.samples_per_prompt",
    "num_iterations": "algorithm.epochs",
    "num_train_epochs": "trainer.epochs",
    "output": "--output-dir",
    "output_dir": "--output-dir",
    "per_device_train_batch_size": "trainer.micro_batch",
    "ppo_epochs": "algorithm.epochs",
    "ppo_micro_batch_size_per_gpu": "trainer.micro_batch",
    "ppo_mini_batch_size": "trainer.minibatch, in responses",
    "pretrain": "model",
    "prompt_data": "task.path",
    "prompt_max_len": "task.max_prompt_tokens",
    "report_to": "telemetry.trackers",
    "resume_from_checkpoint": "--resume",
    "reward_funcs": "task.reward",
    "reward_pretrain": "reward_model.model with task.reward=model",
    "rollout_batch_size": "trainer.batch, in responses",
    "save_freq": "checkpoint.every",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "tensor_model_parallel_size": "vllm.tensor_parallel",
    "test_freq": "evaluate.every",
    "top_k": "generation.temperature alone, as the policy is trained on the whole distribution that it samples from",
    "top_p": "generation.temperature alone, as the policy is trained on the whole distribution that it samples from",
    "total_epochs": "trainer.epochs",
    "total_training_steps": "trainer.steps",
    "train_batch_size": "trainer.batch, in responses",
    "train_files": "task.path",
    "use_vllm": "engines.generator=vllm",
    "use_wandb": "telemetry.trackers=[wandb]",
    "vllm_gpu_memory_utilization": "vllm.memory_policy",
    "vllm_tensor_parallel_size": "vllm.tensor_parallel",
    "warmup_ratio": "trainer.warmup",
    "zero_stage": "deepspeed.zero_optimization.stage with engines.trainer=deepspeed",
}
"""Name elsewhere -> our knob, or the setting that stands for it. The last word of a dotted name counts."""


def ours(key: str, value: Any = None) -> str | None:
    """Return what a foreign name means here; None if it is none.

    >>> ours("trainer.lr"), ours("actor_rollout_ref", {"rollout": {"n_samples_per_prompt": 8}})
    ('trainer.learning_rate', 'algorithm.samples_per_prompt')
    """
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
    return SYNONYMS.get(key.rpartition(".")[2].replace("-", "_"))

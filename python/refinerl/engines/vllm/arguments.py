"""The arguments of vLLM's `LLM` for an engine of ours."""

from __future__ import annotations

import os
from typing import Any

import torch

from refinerl.engines.vllm.proposer import PROPOSER
from refinerl.engines.vllm.weights import lora_rank

CPU_CACHE = 2**30
"""Bytes of the key-value cache on a CPU, where vLLM's share of the machine's memory would be far too much."""

WORKER = "refinerl.engines.vllm.worker.SleepingWorker"
"""The worker class of engines that sleep."""


def arguments(
    *,
    cpu: bool,
    dtype: str,
    context_length: int | None,
    max_rows: int,
    memory: float | None,
    tensor_parallel: int,
    prefix_caching: bool,
    eager: bool,
    sleeps: bool,
    guesses: int,
    adapter: tuple[int, int] | None,
) -> dict[str, Any]:
    """Translate the arguments of `VllmGenerator`, of which `sleeps` already says whether this platform can.

    In a process that has joined others, the engine is one of theirs.
    """
    chosen: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": context_length,
        "max_num_seqs": max_rows,
        "enable_prefix_caching": prefix_caching,
        "enforce_eager": eager or cpu,
        "enable_sleep_mode": sleeps,
        "tensor_parallel_size": tensor_parallel,
        "logprobs_mode": "processed_logprobs",  # those of the distribution that is sampled from
        "generation_config": "vllm",  # not the model's own sampling defaults
        "seed": 0,
        "use_tqdm_on_load": False,
    }
    if sleeps:
        chosen["worker_cls"] = WORKER
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        chosen["distributed_executor_backend"] = "external_launcher"
    if memory is not None or not cpu:
        chosen["gpu_memory_utilization"] = 0.3 if memory is None else memory
    elif not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        chosen["kv_cache_memory_bytes"] = CPU_CACHE
    if adapter is not None:
        chosen |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": lora_rank(adapter[0])}
    if guesses:
        chosen["speculative_config"] = {
            "method": "custom_class",
            "model": PROPOSER,
            "num_speculative_tokens": guesses,
        }
    return chosen

"""What `--dry-run` prints: the resolved configuration and the plan. Starts nothing."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from refinerl import recipe
from refinerl.config import Config
from refinerl.engines.launched import Launched
from refinerl.memory import Shares, shares
from refinerl.rewards import load_data
from refinerl.tasks.apps import ProblemSet
from refinerl.tasks.conversations import HUB

GIB = 2**30


def show(config: Config, console: Console) -> None:
    """Prints the configuration as YAML, then the plan as comments, so that the whole can be kept as a recipe.

    Raises:
        UserError: the data cannot be read.
    """
    prompts = None
    if not (config.task.path or "").startswith(HUB):
        data = load_data(config)
        prompts = len(data.problems) if isinstance(data, ProblemSet) else len(data)
    console.print(recipe.to_yaml(config), highlight=False, markup=False, end="")
    for line in plan(config, prompts):
        console.print(f"# {line}", highlight=False, markup=False, soft_wrap=True)


def plan(config: Config, prompts: int | None) -> Iterator[str]:
    """Lines that say what a run would do: models, engines, memory, steps. `prompts` is None if uncounted."""
    trainer, algorithm, constraint = config.trainer, config.algorithm, config.constraint
    samples = algorithm.samples_per_prompt or 1
    updates = algorithm.epochs * math.ceil(trainer.batch / (trainer.minibatch or trainer.batch))
    per_step = trainer.batch // samples
    yield f"plan: {algorithm.name} with constraint {constraint.name} on {config.model}"
    yield from _engines(config)
    yield (
        f"steps: {trainer.steps}, each of {per_step} prompts × {samples} samples and {updates} optimizer "
        f"{'step' if updates == 1 else 'steps'}"
    )
    if prompts is None:
        yield f"data: {config.task.path}, read from the hub when the run starts"
    else:
        passes = trainer.steps * per_step / prompts
        yield f"data: {prompts} prompts, {passes:.1f} passes (more where dynamic sampling draws again)"
    if config.task.reward == "model":
        yield f"reward: the model {config.reward_model.model}"
    yield from _memory(config)


def _engines(config: Config) -> Iterator[str]:
    lora, engine = config.lora, config.engines.generator
    if engine == "transformers":
        yield f"engines: transformers generates, {config.engines.trainer} trains, {_ranks()}"
    else:
        here = "" if importlib.util.find_spec("vllm") else " (not installed here)"
        two = not lora.rank and config.constraint.name == "dynamic"
        count = "two engines" if two else "one engine"
        yield f"engines: vLLM{here} generates on {count}, {config.engines.trainer} trains, {_ranks()}"
    if lora.rank:
        yield f"policy: a LoRA adapter of rank {lora.rank}; without it the same weights are reference and refiner"


def _stage(config: Config) -> int:
    return int(config.deepspeed.get("zero_optimization", {}).get("stage", 0)) * (config.engines.trainer == "deepspeed")


def _trained(config: Config, parameters: int, width: int) -> Shares:
    """What a model that learns takes of each rank."""
    launched, stage = Launched.read(), _stage(config)
    ranks = 1 if launched is None else launched.size
    return shares(parameters, width, stage=stage, ranks=ranks, master=stage > 0 and width == 2)


def _reference(config: Config, size: int) -> dict[str, int]:
    """What the frozen reference takes of each rank, if its weights take `size` bytes."""
    if config.engines.offload_reference:
        return {"the reference while it is used": size}
    if config.engines.generator == "transformers":
        return {"reference and refiner": size}
    launched = Launched.read()
    ranks = launched.size if launched is not None and _stage(config) == 3 else 1
    return {"reference": -(-size // ranks)}


def _ranks() -> str:
    launched = Launched.read()
    return "in this process" if launched is None else f"on {launched.size} ranks"


def _memory(config: Config) -> Iterator[str]:
    count = parameters(config.model)
    if count is None:
        yield "memory: unknown, the model is not on this machine"
        return
    width = 4 if config.dtype == "float32" else 2
    policy = _trained(config, count, width)
    if config.lora.rank:
        copies = {"policy, reference and refiner": policy.weights}  # the adapter's own state is a few percent of that
    else:
        copies = {"policy": policy.weights, **_reference(config, count * width)}
        copies["gradients and AdamW"] = policy.gradients + policy.optimizer
    if config.engines.generator == "vllm":
        engines = 1 if config.lora.rank or config.constraint.name != "dynamic" else 2
        # And its caches, whose size is a knob.
        copies["vLLM's weights"] = engines * -(-count * width // config.vllm.tensor_parallel)
    elif _stage(config) == 3:
        copies["the weights that generate"] = count * width
    unknown = []
    if config.algorithm.name == "ppo":
        critic = count if config.critic.model is None else parameters(config.critic.model)
        if critic is None:
            unknown.append(f"the critic {config.critic.model}")
        else:
            copies["critic with gradients and AdamW"] = _trained(config, critic, width).total
    if config.task.reward == "model":
        scorer = parameters(config.reward_model.model or "")
        if scorer is None:
            unknown.append(f"the reward model {config.reward_model.model}")
        else:
            copies["reward model"] = scorer * (4 if (config.reward_model.dtype or config.dtype) == "float32" else 2)
    launched = Launched.read()
    yield (
        f"memory{'' if launched is None else ' of each rank'}: {count / 1e6:.0f} M weights; "
        + ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in copies.items())
        + f"; together {sum(copies.values()) / GIB:.1f} GiB and activations"
        + (f", and unknown as not on this machine: {', '.join(unknown)}" if unknown else "")
    )


def parameters(model: str) -> int | None:
    """Weights of a model that is on this machine, counted without loading it; None if it is not."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from refinerl.engines import bundled

    if model.lower() == bundled.NAME:
        return bundled.PARAMETERS
    offline = os.environ.get("HF_HUB_OFFLINE")
    try:
        found = AutoConfig.from_pretrained(model, local_files_only=not Path(model).is_dir() or offline is not None)
    except (OSError, ValueError):
        return None
    with torch.device("meta"):
        built: Any = AutoModelForCausalLM.from_config(found)
    return int(built.num_parameters())

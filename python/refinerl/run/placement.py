"""Checks of a run's devices and ranks before anything is loaded. Used by the commands."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from refinerl.config import Config
from refinerl.engines import devices
from refinerl.engines.launched import Launched
from refinerl.engines.releases import DEEPSPEED, VLLM
from refinerl.errors import UserError
from refinerl.run.memory import parameters
from refinerl.run.trainers import device_of, spread


def planned_ranks(config: Config) -> int:
    """Return the number of ranks that a launcher started, else `plan.gpus`."""
    launched = Launched.read()
    if launched is not None:
        return launched.size
    return 1 if config.engines.trainer == "torch" else config.plan.gpus


def check_ranks(config: Config, ranks: int) -> None:
    """Check that the ranks can share the work.

    Raises:
        UserError: they cannot; the message names the nearest value that works.
    """
    share = config.vllm.tensor_parallel
    if config.engines.generator == "vllm" and ranks % share:
        raise UserError(
            f"vllm.tensor_parallel must divide the number of ranks, {ranks}, got {share}: "
            "1 always works, and each rank then has engines of its own"
        )
    if ranks == 1:
        return
    if config.engines.trainer == "torch":
        raise UserError(
            f"engines.trainer=torch trains in one process, and this run has {ranks}: choose engines.trainer=deepspeed, "
            "or start one process"
        )
    trainer, samples = config.trainer, config.algorithm.samples_per_prompt
    if trainer.batch // samples % ranks:
        whole = trainer.minibatch == trainer.batch
        unit = ranks * samples if whole else math.lcm(ranks * samples, trainer.minibatch)
        batch = max(1, (2 * trainer.batch + unit) // (2 * unit)) * unit
        raise UserError(
            f"trainer.batch = {trainer.batch} is {trainer.batch // samples} groups of algorithm.samples_per_prompt = "
            f"{samples}, which {ranks} ranks cannot share evenly: choose trainer.batch={batch}"
            + (f" trainer.minibatch={batch}" if whole else "")
        )


def check_abilities(config: Config, device: torch.device) -> None:
    """Check that the engines' libraries are installed in tested releases, and that the devices can do what is asked.

    That is: types of numbers and kernels. No model is loaded.

    Raises:
        UserError: a library is missing or untested, or a device cannot do what is asked.
    """
    if config.engines.generator == "vllm":
        VLLM.require()
    if config.engines.trainer == "deepspeed":
        DEEPSPEED.require()
    if config.dtype == "bfloat16":
        devices.require_bfloat16(device, "dtype=bfloat16", "dtype=float32")
    bf16 = config.deepspeed.get("bf16", {})
    if config.engines.trainer == "deepspeed" and isinstance(bf16, dict) and bf16.get("enabled") is True:
        devices.require_bfloat16(device, "deepspeed.bf16.enabled=true", "deepspeed.bf16.enabled=false")
    if config.kernels.impl == "cuda":
        devices.require_kernels(device)
    if config.scored_by_model:
        scorer = devices.resolve(config.reward_model.device, "reward_model.device")
        if config.reward_model.dtype == "bfloat16":
            devices.require_bfloat16(scorer, "reward_model.dtype=bfloat16", "reward_model.dtype=float32")


def check_memory(config: Config, policy: str, ranks: int = 1) -> None:
    """Check that each device has enough free memory for the weights that are loaded first. `--dry-run` covers the rest.

    Args:
        config: the run's.
        policy: name or folder of the policy's model. A model of unknown size is not counted.
        ranks: the ranks over which ZeRO-3 partitions the weights.

    Raises:
        UserError: a device is too small, or another process uses its memory.
    """
    needs: dict[str, dict[str, int]] = {}
    for name, device, size in _weights(config, policy, ranks):
        if device != "cpu":
            needs.setdefault(device, {})[name] = size
    for device, sizes in needs.items():
        names = " and ".join(filter(None, (", ".join(list(sizes)[:-1]), list(sizes)[-1])))
        devices.require_memory(
            torch.device(device), sum(sizes.values()), f"the weights of {names}", _turn(config, sizes)
        )


def _weights(config: Config, policy: str, ranks: int) -> Iterator[tuple[str, str, int]]:
    """Iterate over (model, device, minimum bytes), without models that are not on this machine."""
    device, width = device_of(config.device), 4 if config.dtype == "float32" else 2
    count = parameters(policy) or 0
    share = ranks if spread(config) else 1
    yield "policy", device, count * width // share
    if not config.lora.rank and not config.engines.offload_reference:
        yield "reference", device, count * width // share
    engines, own = config.engines, config.refines and config.refiner.source == "model"
    if own and engines.generator == "transformers" and not engines.offload_reference:
        yield "refiner", device, (parameters(config.refiner.model or "") or 0) * width
    if config.needs_critic:
        critic = count if config.critic.model == config.model else parameters(config.critic.model) or 0
        yield "critic", device, critic * width // share
    r = config.reward_model
    if config.scored_by_model:
        scorer = parameters(r.model or "") or 0
        place = device_of(r.device, "reward_model.device")
        yield "reward model", place, scorer * (4 if r.dtype == "float32" else 2)


def _turn(config: Config, sizes: dict[str, int]) -> str:
    turns = []
    if "reference" in sizes and not spread(config):
        turns += ["engines.offload_reference=true", "lora.rank=16"]
    turns.append("a smaller model")  # bfloat16 does not help: trained weights are kept in float32 as well
    return f"choose {', '.join(turns[:-1])}{' or ' if turns[:-1] else ''}{turns[-1]}"

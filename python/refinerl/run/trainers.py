"""What learns, and with what: networks, trainers, devices. A part of the wiring."""

from __future__ import annotations

import copy
from typing import Any

from transformers import PreTrainedModel

from refinerl.config import Config
from refinerl.contracts import Trainer, World
from refinerl.engines import devices
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.models import load_trunk, resolve_model
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.torch import TorchTrainer


def make_network(config: Config, model: PreTrainedModel, adapted: Any = None) -> PolicyNetwork:
    """What the policy learns: all weights, or an adapter beside them, which `adapted` has already."""
    lora = config.lora
    if not lora.rank:
        return _full(config, model)
    return LoraNetwork(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.targets,
        merge=lora.merge,
        temperature=config.generation.temperature,
        impl=config.kernels.impl,
        adapted=adapted,
    )


def make_policy(config: Config, network: PolicyNetwork, world: World) -> Trainer:
    """The policy, which learns."""
    return _make_trainer(config, network, config.trainer.learning_rate, world)


def make_reference(config: Config, model: PreTrainedModel | None, world: World) -> Trainer | None:
    """The frozen reference; None where it is the policy without its adapter.

    It is whole on every rank where it is also the refiner that transformers writes with. Where vLLM has the refiner,
    ZeRO-3 spreads it like the policy.
    """
    if model is None:
        return None
    network = _full(config, model)
    if spread(config) and config.engines.generator == "vllm":
        return DeepSpeedTrainer(network, None, world, config.deepspeed)
    return TorchTrainer(network, home=home_of_reference(config))


def make_critic(
    config: Config, policy_name: str, device: str, world: World, trunk: PreTrainedModel | None = None
) -> Trainer:
    """A value model from `critic.model` or the policy, with its scalar head if it has one, else a head of zeros.

    `trunk` is a copy of the policy's, where the policy was given as an object and `critic.model` is the policy's.
    """
    if trunk is not None:
        return _make_trainer(config, ValueNetwork(trunk).to(device), config.critic.learning_rate, world)
    name = policy_name if config.critic.model == config.model else resolve_model(config.critic.model)
    # Started from the reward model, its values are to be in the rewards' units.
    r = config.reward_model
    normalize = config.critic.model == r.model and r.normalize is not False
    loaded, head = load_trunk(name, dtype=config.dtype, normalize=normalize)
    return _make_trainer(config, ValueNetwork(loaded, head).to(device), config.critic.learning_rate, world)


def home_of_reference(config: Config) -> str | None:
    """Where the reference is while it is used, if it waits on the CPU in between; None if it stays where it is."""
    return device_of(config.device) if config.engines.offload_reference else None


def spread(config: Config) -> bool:
    """Are the trainers' weights cut up over the ranks (ZeRO-3)."""
    zero = config.deepspeed.get("zero_optimization", {})
    return config.engines.trainer == "deepspeed" and zero.get("stage") == 3


def writing_network(config: Config, network: PolicyNetwork) -> PolicyNetwork:
    """The network that transformers writes with: the trainer's own, or a copy where that will be cut up."""
    return copy.deepcopy(network) if spread(config) and config.engines.generator == "transformers" else network


def device_of(name: str, knob: str = "device") -> str:
    """The torch device that a knob means: `auto` is the GPU where there is one.

    Raises:
        UserError: there is none such, or it cannot be used.
    """
    return str(devices.resolve(name, knob))


def _full(config: Config, model: PreTrainedModel) -> PolicyNetwork:
    return PolicyNetwork(model, temperature=config.generation.temperature, impl=config.kernels.impl)


def _make_trainer(config: Config, network: PolicyNetwork | ValueNetwork, learning_rate: float, world: World) -> Trainer:
    optimization = _optimization(config, learning_rate)
    checkpointing = config.trainer.gradient_checkpointing
    match config.engines.trainer:
        case "torch":
            return TorchTrainer(network, optimization, gradient_checkpointing=checkpointing)
        case "deepspeed":
            return DeepSpeedTrainer(
                network, optimization, world, config.deepspeed, gradient_checkpointing=checkpointing
            )


def _optimization(config: Config, learning_rate: float) -> Optimization:
    t = config.trainer
    updates = t.steps * config.algorithm.epochs * (t.batch // t.minibatch)
    schedule = Schedule(t.schedule, total_steps=updates, warmup=t.warmup, minimum=t.min_learning_rate)
    return Optimization(learning_rate, schedule, t.betas, weight_decay=t.weight_decay, max_grad_norm=t.max_grad_norm)

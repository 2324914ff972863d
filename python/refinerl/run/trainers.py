"""Networks, trainers and devices of a run. A part of the wiring."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from transformers import PreTrainedModel

from refinerl.config import Config
from refinerl.contracts import World
from refinerl.engines import devices
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.models import load_trunk, resolve_model
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.packing import slowness, why_not
from refinerl.engines.torch import TorchTrainer
from refinerl.errors import UserError
from refinerl.kernels.prefixes import Sharing

AnyTrainer: TypeAlias = TorchTrainer | DeepSpeedTrainer


def make_network(config: Config, model: PreTrainedModel, adapted: Any = None) -> PolicyNetwork:
    """Make the policy's network: all weights are trained, or a LoRA adapter, which `adapted` may already have."""
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


def make_policy(config: Config, network: PolicyNetwork, world: World) -> AnyTrainer:
    """Make the policy's trainer."""
    return _make_trainer(config, network, config.trainer.learning_rate, world)


def make_reference(config: Config, model: PreTrainedModel | None, world: World) -> AnyTrainer | None:
    """Make the frozen reference; None if it is the policy without its adapter.

    With transformers the reference is also the refiner, so every rank holds all of it. With vLLM, ZeRO-3 partitions it
    as it does the policy.
    """
    if model is None:
        return None
    network = _full(config, model)  # can share prefixes if the policy can: it is the same model
    if spread(config) and config.engines.generator == "vllm":
        return DeepSpeedTrainer(network, None, world, config.deepspeed)
    return TorchTrainer(network, home=home_of_reference(config))


def make_critic(
    config: Config, policy_name: str, device: str, world: World, trunk: PreTrainedModel | None = None
) -> AnyTrainer:
    """Make the value model from `critic.model`, with its scalar head if it has one, else with a head of zeros.

    `trunk` is a copy of the policy's trunk, if the policy was given as an object and the critic starts from it.
    """
    if trunk is not None:
        return _make_trainer(config, ValueNetwork(trunk).to(device), config.critic.learning_rate, world)
    name = policy_name if config.critic.model == config.model else resolve_model(config.critic.model)
    # A critic that starts from the reward model predicts values in the units of the rewards.
    r = config.reward_model
    normalize = config.critic.model == r.model and r.normalize is not False
    loaded, head = load_trunk(name, dtype=config.dtype, normalize=normalize)
    return _make_trainer(config, ValueNetwork(loaded, head).to(device), config.critic.learning_rate, world)


def share_prefixes(config: Config, trainers: Sequence[AnyTrainer | None], say: Callable[[str], None]) -> Sharing:
    """Let all networks share prefixes, or none; return which. `say` gets the reason if they cannot.

    Raises:
        UserError: they cannot, and the recipe asks for it.
    """
    networks = [trainer.network for trainer in trainers if trainer is not None]
    sharing = config.trainer.share_prefixes
    if sharing == "never":
        return sharing
    reasons = [network.not_shared for network in networks]
    if sharing == "auto":
        reasons += [slowness(network.trunk) for network in networks]
    reason = next(filter(None, reasons), "")
    if reason and sharing == "always":
        raise UserError(
            f"trainer.share_prefixes=always cannot work with this model ({reason}): choose auto, which then computes "
            "each row alone"
        )
    if reason:
        say(f"prefixes that rows share are computed in each row: {reason}")
        return "never"
    for network in networks:
        network.sharing = sharing
    return sharing


def stop_sharing(trainers: Sequence[AnyTrainer | None]) -> None:
    """Give the models their own attention back: a caller may use them after the run."""
    for trainer in trainers:
        if trainer is not None:
            trainer.network.sharing = "never"


def home_of_reference(config: Config) -> str | None:
    """Return the device on which an offloaded reference is used; None if it is not offloaded."""
    return device_of(config.device) if config.engines.offload_reference else None


def spread(config: Config) -> bool:
    """Return True if ZeRO-3 partitions the trainers' weights over the ranks."""
    zero = config.deepspeed.get("zero_optimization", {})
    return config.engines.trainer == "deepspeed" and zero.get("stage") == 3


def writing_network(config: Config, network: PolicyNetwork) -> PolicyNetwork:
    """Return the network that transformers generates with: the trainer's own, or a copy if ZeRO-3 partitions that."""
    return copy.deepcopy(network) if spread(config) and config.engines.generator == "transformers" else network


def device_of(name: str, knob: str = "device") -> str:
    """Resolve a device knob to a torch device: `auto` is the GPU if there is one, else the CPU.

    Raises:
        UserError: it does not exist or cannot be used.
    """
    return str(devices.resolve(name, knob))


def _full(config: Config, model: PreTrainedModel) -> PolicyNetwork:
    return PolicyNetwork(model, temperature=config.generation.temperature, impl=config.kernels.impl)


def _make_trainer(
    config: Config, network: PolicyNetwork | ValueNetwork, learning_rate: float, world: World
) -> AnyTrainer:
    _ask(config, network)
    optimization = _optimization(config, learning_rate)
    checkpointing = config.trainer.gradient_checkpointing
    match config.engines.trainer:
        case "torch":
            return TorchTrainer(network, optimization, gradient_checkpointing=checkpointing)
        case "deepspeed":
            return DeepSpeedTrainer(
                network, optimization, world, config.deepspeed, gradient_checkpointing=checkpointing
            )


def _ask(config: Config, network: PolicyNetwork | ValueNetwork) -> None:
    """Find out whether a network can share prefixes, before a trainer takes its weights."""
    if config.trainer.share_prefixes != "never":
        network.not_shared = why_not(network.trunk)


def _optimization(config: Config, learning_rate: float) -> Optimization:
    t = config.trainer
    updates = t.steps * config.algorithm.epochs * (t.batch // t.minibatch)
    schedule = Schedule(t.schedule, total_steps=updates, warmup=t.warmup, minimum=t.min_learning_rate)
    return Optimization(learning_rate, schedule, t.betas, weight_decay=t.weight_decay, max_grad_norm=t.max_grad_norm)

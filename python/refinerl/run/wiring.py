"""Where the parts of a run are chosen and connected, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from refinerl.algorithms import Algorithm
from refinerl.benchmarks.evaluator import Evaluator
from refinerl.config import Config
from refinerl.constraints import Constraint, Sum
from refinerl.contracts import ALONE, Constraints, Generator, Task, Trainer, World
from refinerl.contracts.plugins import OBJECT, Kind, resolve
from refinerl.engines import devices
from refinerl.engines.allocator import keep_freed_memory
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.precision import multiply_float32
from refinerl.errors import UserError
from refinerl.loop.refiner import Refiner
from refinerl.loop.rollout import Roller
from refinerl.loop.stream import PromptStream
from refinerl.loop.update import Updater
from refinerl.records import Sampling
from refinerl.run.generators import make_generators
from refinerl.run.keeper import Keeper
from refinerl.run.pace import Pace
from refinerl.run.placement import check_memory
from refinerl.run.tasks import make_evaluator, make_sandbox, make_task
from refinerl.run.telemetry import Telemetry, make_trackers
from refinerl.run.trainers import device_of, make_critic, make_network, make_policy, make_reference, writing_network
from refinerl.tokenization import ChatTokenizer


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    stream: PromptStream
    task: Task
    roller: Roller
    generator: Generator
    tokenizer: ChatTokenizer
    algorithm: Algorithm
    constraint: Constraints
    updater: Updater
    world: World
    telemetry: Telemetry
    device: torch.device
    keeper: Keeper
    pace: Pace
    evaluator: Evaluator | None = None
    """Where `evaluate.every` asks for one."""


@contextmanager
def wire(
    config: Config, folder: Path, console: Console, world: World = ALONE, notice: Callable[[str], None] = lambda _: None
) -> Iterator[Parts]:
    """Chooses and connects the parts; closes what holds processes or files.

    Raises:
        UserError: the ranks cannot share the work, or a part cannot be had.
    """
    check_ranks(config, world)
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    if device == "cpu":  # elsewhere the host holds little, and would never give it back
        keep_freed_memory()
    with ExitStack() as stack:
        trackers = []
        if world.rank == 0:
            trackers = make_trackers(config.telemetry.trackers, folder, config.model_dump(mode="json"))
        settle = partial(devices.settle, torch.device(device))
        telemetry = Telemetry(
            folder, console, config.trainer.steps, trackers, world=world, notice=notice, settle=settle
        )
        stack.callback(telemetry.close)
        telemetry.say(f"device: {devices.describe(torch.device(device))}")
        check_memory(config, config.model, world.size)
        with telemetry.busy(f"load {config.model}"):
            name = resolve_model(config.model)
            tokenizer = ChatTokenizer.load(name, chat_template=config.chat_template)
            if name != config.model:  # it was fetched, and its size is known now
                check_memory(config, name, world.size)
            policy_model = load_model(name, dtype=config.dtype).to(device)
            reference_model = None if config.lora.rank else load_model(name, dtype=config.dtype)
            if reference_model is not None and not config.engines.offload_reference:
                reference_model = reference_model.to(device)
        room = room_for_prompts(config, policy_model.config.get_text_config().max_position_embeddings)
        task = make_task(config, tokenizer, telemetry.say, room, world)
        stack.callback(task.close)

        network = make_network(config, policy_model)
        writing = writing_network(config, network)
        policy = make_policy(config, network, world)
        reference = make_reference(config, reference_model, world)
        with telemetry.busy(f"engines: {config.engines.generator}"):
            generator, refiner_generator = make_generators(
                config, name, tokenizer, writing, policy.weights, reference_model, world, telemetry.tick, stack
            )
        multiply_float32(device, tf32=config.engines.tf32)
        tokens = config.generation.max_tokens
        sampling = Sampling(
            tokens,
            config.generation.temperature,
            n=config.algorithm.samples_per_prompt,
            stop=config.generation.stop,
        )
        refiner = Refiner(
            generator=refiner_generator,
            task=task,
            sampling=Sampling(config.refiner.max_tokens or tokens, config.refiner.temperature),
            encode_chat=tokenizer.encode_chat,
            encode=tokenizer.encode,
            decode=tokenizer.decode,
            eos_token_id=tokenizer.eos_token_id,
            context_length=generator.context_length,
            accept=config.accept,
            seed=config.seed,
            clock=telemetry.clock,
            world=world,
        )
        algorithm, constraint = make_algorithm(config), make_constraint(config, refiner)
        trainer = config.trainer
        updater = Updater(
            policy=policy,
            reference=reference,
            critic=make_critic(config, name, device, world) if algorithm.needs_critic else None,
            algorithm=algorithm,
            constraint=constraint,
            world=world,
            minibatch=trainer.minibatch or trainer.batch,
            epochs=config.algorithm.epochs,
            token_budget=trainer.micro_batch_tokens,
            max_rows=trainer.micro_batch,
            entropy_bonus=config.algorithm.entropy_bonus,
            seed=config.seed,
            correction=config.mismatch.correction,
            correction_cap=config.mismatch.cap,
        )
        stream = PromptStream(task.prompts(), config.seed, trainer.epochs)
        roller = Roller(generator, task, sampling, config.seed, telemetry.clock)
        evaluator = None
        if config.evaluate.every:
            box = make_sandbox(config, telemetry.say, world)
            stack.callback(box.close)
            evaluator = make_evaluator(config, generator, tokenizer, box, telemetry.say)
        trainers: dict[str, Trainer] = {"policy": policy}
        if updater.critic is not None:
            trainers["critic"] = updater.critic
        yield Parts(
            stream,
            task,
            roller,
            generator,
            tokenizer,
            algorithm,
            constraint,
            updater,
            world,
            telemetry,
            torch.device(device),
            Keeper(
                folder,
                trainers,
                every=config.checkpoint.every,
                keep=config.checkpoint.keep,
                world=world,
                device=torch.device(device),
            ),
            Pace.of(config),
            evaluator,
        )


def room_for_prompts(config: Config, context: int) -> int:
    """Tokens that a prompt may have at most, where the model reads `context` and vLLM perhaps fewer.

    Raises:
        UserError: there is no room.
    """
    if config.engines.generator == "vllm":
        context = min(context, config.vllm.max_model_len or context)
    room = context - config.generation.max_tokens
    if room < 1:
        raise UserError(
            f"generation.max_tokens = {config.generation.max_tokens} leaves no room for a prompt in a context of "
            f"{context} (the model's, or vllm.max_model_len): choose at most generation.max_tokens={context // 2}"
        )
    return room


def check_ranks(config: Config, world: World) -> None:
    """Sees that the ranks can share the work.

    Raises:
        UserError: they cannot; the message names a value that works.
    """
    if world.size == 1:
        return
    if config.engines.trainer == "torch":
        raise UserError(
            f"engines.trainer=torch trains in one process, and this run has {world.size}: choose "
            "engines.trainer=deepspeed, or start one process"
        )
    samples = config.algorithm.samples_per_prompt
    prompts = config.trainer.batch // samples
    if prompts % world.size:
        batch = -(-prompts // world.size) * world.size * samples
        raise UserError(
            f"trainer.batch = {config.trainer.batch} is {prompts} groups of algorithm.samples_per_prompt = {samples}, "
            f"which {world.size} ranks cannot share evenly: choose trainer.batch={batch}"
        )


def make_algorithm(config: Config) -> Algorithm:
    """The algorithm that the recipe names, with its options."""
    options = config.algorithm
    made: Algorithm = _named("algorithm", options.name)(options)
    charging = [c.penalty_in_group for c in config.held if c.apply == "reward"]
    made.connect(
        max_tokens=config.generation.max_tokens,
        penalty_in_group=charging[0] if charging else config.constraint.penalty_in_group,
    )
    return made


def make_constraint(config: Config, refiner: Refiner) -> Constraints:
    """The constraint that the recipe names, or the sum of several."""
    made: list[Constraint] = [_named("constraint", options.name)(options) for options in config.held]
    for constraint in made:
        constraint.connect(refiner)
    if len(made) == 1:
        return made[0]
    return Sum([(options.name, constraint) for options, constraint in zip(config.held, made, strict=True)])


def _named(kind: Kind, name: str) -> type[Any]:
    if name.startswith(OBJECT):
        raise UserError(f"{kind}.name={name} was an object of the program that began this run: hand it over again")
    return resolve(kind, name)

"""The selection and connection of the parts of a run, which happens here only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from refinerl import contracts
from refinerl.algorithms import Algorithm
from refinerl.config import Config
from refinerl.constraints import Constraint, Probed, Sum
from refinerl.contracts import ALONE, Constraints, Generator, Task, Trainer, World
from refinerl.contracts.plugins import Kind, resolve
from refinerl.engines import devices
from refinerl.engines.models import resolve_model
from refinerl.engines.precision import multiply_float32
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.loop.refiner import Refiner
from refinerl.loop.rollout import Roller
from refinerl.loop.stream import PassStream, PromptStream
from refinerl.loop.update import Updater
from refinerl.records import Sampling
from refinerl.run import preflight
from refinerl.run.evaluation import Evaluation, make_benchmark, make_held_out, read_held_out, read_suite
from refinerl.run.generators import make_generators, make_refiner
from refinerl.run.given import NOTHING, Given, refuse_object
from refinerl.run.interruption import Interruption
from refinerl.run.keeper import Keeper
from refinerl.run.loading import load, trunk_for_critic
from refinerl.run.pace import Pace
from refinerl.run.placement import check_memory, check_ranks
from refinerl.run.tasks import make_sandbox, make_task
from refinerl.run.telemetry import Telemetry
from refinerl.run.trackers import Tracker, make_trackers
from refinerl.run.trainers import (
    device_of,
    make_critic,
    make_network,
    make_policy,
    make_reference,
    share_prefixes,
    stop_sharing,
    writing_network,
)
from refinerl.tasks.code import CodeTask
from refinerl.tasks.dialogue import DialogueTask
from refinerl.tasks.trl import Progress


@dataclass(frozen=True)
class Parts:
    """The parts of a run."""

    stream: PromptStream | PassStream
    task: Task
    roller: Roller
    generator: Generator
    tokenizer: ChatTokenizer
    algorithm: contracts.Algorithm
    constraint: Constraints
    updater: Updater
    world: World
    telemetry: Telemetry
    device: torch.device
    keeper: Keeper
    pace: Pace
    evaluation: Evaluation | None = None
    """The evaluation during training, if `evaluate.every` is above 0."""


@contextmanager
def wire(
    config: Config,
    folder: Path,
    console: Console,
    world: World = ALONE,
    notice: Callable[[str], None] = lambda _: None,
    given: Given = NOTHING,
    interruption: Interruption | None = None,
    *,
    quiet: bool = False,
) -> Iterator[Parts]:
    """Select and connect the parts; yield them; close those that hold processes or files.

    `quiet` leaves only warnings of what the run would print.

    Raises:
        UserError: the ranks cannot share the work, or a part cannot be loaded.
    """
    check_ranks(config, world.size)
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if world.rank == 0:
            t = config.telemetry
            told = config.model_dump(mode="json")
            trackers = make_trackers(t.trackers, folder, told, project=t.project, run_name=t.run_name)
        settle = partial(devices.settle, torch.device(device))
        telemetry = Telemetry(
            folder,
            console,
            config.trainer.steps,
            trackers,
            world=world,
            notice=notice,
            settle=settle,
            peak=partial(devices.peak_memory, torch.device(device)),
            on_step=given.on_step,
            quiet=quiet,
            completions=config.telemetry.completions,
            completions_every=config.telemetry.completions_every,
        )
        stack.push(lambda error, *_: telemetry.close(failed=error is not None))
        if interruption is not None:
            interruption.show = telemetry.display.notices
        telemetry.say(f"device: {devices.describe(torch.device(device))}")
        check_memory(config, config.model, world.size)
        if given.model is None and given.adapted is None:
            refuse_object(config.model, "model", "model")
        held_out, suite = read_held_out(config, given), read_suite(config)
        data = preflight.read_data(config, given)
        preflight.check_models(config, given)
        with telemetry.busy(f"load {config.model}"):
            if (fetched := resolve_model(config.model)) != config.model:  # now its size is known
                check_memory(config, fetched, world.size)
            loaded = load(config, given, device)
        name, tokenizer, reference_model = loaded.name, loaded.tokenizer, loaded.reference
        telemetry.decode = tokenizer.decode
        context = loaded.policy.config.get_text_config().max_position_embeddings
        room = room_for_prompts(config, context, "generation.max_tokens", config.generation.max_tokens)
        progress = Progress(config.trainer.steps)
        task = make_task(config, tokenizer, telemetry.say, room, world, given, progress, data)
        stack.callback(task.close)

        network = make_network(config, loaded.policy, given.adapted)
        writing = writing_network(config, network)
        policy = make_policy(config, network, world)
        reference = make_reference(config, reference_model, world)
        with telemetry.busy(f"engines: {config.engines.generator}"):
            generator, author = make_generators(
                config,
                name,
                tokenizer,
                writing,
                policy.weights,
                reference_model,
                world,
                telemetry.tick,
                stack,
                telemetry.say,
            )
        multiply_float32(device, tf32=config.engines.tf32)
        sampling = Sampling(
            config.generation.max_tokens,
            config.generation.temperature,
            n=config.algorithm.samples_per_prompt,
            stop=config.generation.stop,
        )
        refiner = make_refiner(
            config,
            author,
            task,
            tokenizer,
            telemetry.clock,
            context=generator.context_length,
            world=world,
            expect=telemetry.expect,
        )
        algorithm = make_algorithm(config, given.algorithm)
        constraint = make_constraint(config, refiner, given.constraint)
        if config.refiner.probe and not config.probing:
            telemetry.say("refiner.probe=true adds nothing: the constraint asks the refiner, which is measured anyway")
        trainer = config.trainer
        critic = None
        if algorithm.needs_critic:
            critic = make_critic(config, name, device, world, trunk_for_critic(config, given))
        trained = (policy, reference, critic)
        stack.callback(stop_sharing, trained)
        updater = Updater(
            policy=policy,
            reference=reference,
            critic=critic,
            algorithm=algorithm,
            constraint=constraint,
            world=world,
            minibatch=trainer.minibatch,
            epochs=config.algorithm.epochs,
            token_budget=trainer.micro_batch_tokens,
            max_rows=trainer.micro_batch,
            sharing=share_prefixes(config, trained, telemetry.say),
            entropy_bonus=config.algorithm.entropy_bonus,
            seed=config.seed,
            correction=config.mismatch.correction,
            correction_cap=config.mismatch.cap,
            progress=telemetry.tick,
            expect=telemetry.expect,
        )
        if not policy.reads_gradients and any(part.apply == "loss" and part.beta for part in constraint.parts):
            telemetry.say(
                "constraint/gradient_share is not measured with this deepspeed.zero_optimization, whose optimizers are "
                "DeepSpeed's own"
            )
        stream = make_stream(task, config)
        if isinstance(stream, PromptStream):
            progress.per_pass = len(stream.prompts) / Pace.of(config).prompts
        roller = Roller(generator, task, sampling, config.seed, telemetry.clock, progress.at)
        evaluation: Evaluation | None = None
        if config.evaluate.every and config.evaluate.benchmark == "task":
            room = room_for_prompts(config, context, "evaluate.max_tokens", config.evaluate.max_tokens)
            evaluation = make_held_out(config, task, held_out, generator, tokenizer, telemetry.say, room, world)
        elif suite is not None:
            described = isinstance(config.task, CodeTask.Options) and config.task.bounded  # by the task's own sandbox
            box = make_sandbox(config, (lambda _: None) if described else telemetry.say, world)
            stack.callback(box.close)
            evaluation = make_benchmark(config, suite, generator, tokenizer, box, telemetry.say, world)
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
                tokenizer=tokenizer,
                every=config.checkpoint.every,
                minutes=config.checkpoint.minutes,
                keep=config.checkpoint.keep,
                world=world,
                device=torch.device(device),
                interruption=interruption,
            ),
            Pace.of(config),
            evaluation,
        )


def make_stream(task: Task, config: Config) -> PromptStream | PassStream:
    """Return the order of the task's prompts, which are read on demand if its data are streamed."""
    if isinstance(task, DialogueTask) and task.passes is not None:
        return PassStream(task.passes, config.seed, config.trainer.epochs)
    return PromptStream(task.prompts(), config.seed, config.trainer.epochs)


def room_for_prompts(config: Config, context: int, knob: str, max_tokens: int) -> int:
    """Return the maximum tokens of a prompt, for a model with this `context`; vLLM may be limited further.

    `knob` names the knob that `max_tokens`, the length of an answer, comes from.

    Raises:
        UserError: no room is left.
    """
    if config.engines.generator == "vllm":
        context = min(context, config.vllm.max_model_len or context)
    room = context - max_tokens
    if room < 1:
        raise UserError(
            f"{knob} = {max_tokens} leaves no room for a prompt in a context of {context} (the model's, or "
            f"vllm.max_model_len): choose at most {knob}={context // 2}"
        )
    return room


def make_algorithm(config: Config, given: contracts.Algorithm | None = None) -> contracts.Algorithm:
    """Return the given algorithm, or make the one that the recipe names."""
    options = config.algorithm
    made: contracts.Algorithm = given or _named("algorithm", options.name)(options)
    if not isinstance(made, Algorithm):
        return made
    charging = [c.penalty_in_group for c in config.held if c.apply == "reward"]
    made.connect(
        max_tokens=config.generation.max_tokens,
        penalty_in_group=charging[0] if charging else config.constraint.penalty_in_group,
    )
    return made


def make_constraint(config: Config, refiner: Refiner, given: Constraints | None = None) -> Constraints:
    """Return the constraints of a run, with the refiner's probe beside them if the recipe asks for it."""
    constraints = _constraints(config, refiner, given)
    if not config.probing:
        return constraints
    filtered = replace(refiner, accept=config.refiner.probe_accept, accept_truncated=False)
    name = _label(config.refining[0].name) if config.refining else "constraint"
    return Probed(constraints, filtered, config.refiner.probe_every, name)


def _constraints(config: Config, refiner: Refiner, given: Constraints | None) -> Constraints:
    """Return the given constraint, or make the one that the recipe names, or the sum of several."""
    if given is not None:
        if isinstance(given, Constraint | Sum):
            given.connect(refiner)
        return given
    made: list[Constraint] = [_named("constraint", options.name)(options) for options in config.held]
    for constraint in made:
        constraint.connect(refiner)
    if len(made) == 1:
        return made[0]
    return Sum([(_label(options.name), part) for options, part in zip(config.held, made, strict=True)])


def _label(name: str) -> str:
    """Return a constraint's name in the metrics; a class of the user's has its bare name."""
    return name.rpartition(":")[2].rpartition(".")[2]


def _named(kind: Kind, name: str) -> type[Any]:
    refuse_object(name, f"{kind}.name", kind)
    return resolve(kind, name)

"""Data, task, reward and sandbox of a run. A part of the wiring."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from refinerl.config import Config
from refinerl.contracts import ALONE, Task, World
from refinerl.contracts.plugins import OBJECT, resolve
from refinerl.data.apps import ProblemSet
from refinerl.data.conversations import Dialogues, StreamedDialogues
from refinerl.engines.models import is_openrlhf, load_reward_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.run.given import NOTHING, Given, refuse_object
from refinerl.run.memory import explained
from refinerl.run.trainers import device_of
from refinerl.sandbox import Limits, Sandbox, cores
from refinerl.tasks import rules
from refinerl.tasks.base import Task as OwnTask
from refinerl.tasks.code import CodeTask
from refinerl.tasks.dialogue import DialogueTask
from refinerl.tasks.reward_model import RewardModel
from refinerl.tasks.reward_sum import RewardSum
from refinerl.tasks.trl import Progress
from refinerl.tasks.user_reward import UserReward, load_reward

Say = Callable[[str], None]
Data = ProblemSet | Dialogues

MANY_PROMPTS = 10_000
"""Number of prompts from which on tokenizing them takes long enough to be announced."""


def load_data(config: Config, given: Given = NOTHING) -> Data:
    """Read the problems or dialogues that the configuration names; return those that were given.

    Raises:
        UserError: they cannot be read.
    """
    if given.data is not None:
        return given.data
    options = built_in(config)
    refuse_object(options.path or "", "task.path", "prompts")
    return options.read()


def built_in(config: Config) -> CodeTask.Options | DialogueTask.Options:
    """Return the options of a built-in task."""
    assert isinstance(config.task, CodeTask.Options | DialogueTask.Options)
    return config.task


def make_task(
    config: Config,
    tokenizer: ChatTokenizer,
    say: Say,
    room: int,
    world: World = ALONE,
    given: Given = NOTHING,
    progress: Progress | None = None,
    data: Data | None = None,
) -> Task:
    """Make the task: data, reward, and a sandbox for programs.

    Args:
        config: the configuration.
        tokenizer: the policy's.
        say: prints a line.
        room: the maximum number of tokens of a prompt.
        world: the ranks that share the work.
        given: the objects that the configuration names.
        progress: the course of the run, which reward functions may read.
        data: the problems or dialogues of a built-in task; None: they are read here.
    """
    longest = min(room, config.task.max_prompt_tokens or room)
    own = given.task or (make_own_task(config) if ":" in config.task.name else None)
    if isinstance(own, OwnTask):
        connect(own, config, tokenizer, longest)
        if own.too_long:
            say(f"{own.too_long} prompts were left out: they have more than {longest} tokens")
    if own is not None:
        return own
    t, data = built_in(config), load_data(config, given) if data is None else data
    if isinstance(t, DialogueTask.Options):
        assert not isinstance(data, ProblemSet)
        if not isinstance(data, StreamedDialogues) and len(data) > MANY_PROMPTS:
            say(f"tokenizing {len(data):,} prompts to see which are too long; a thousand take about a second")
        dialogues = DialogueTask(
            data,
            tokenizer.encode_chat,
            reward=RewardSum(
                [make_dialogue_reward(name, config, given, world, progress) for name in t.rewards],
                t.reward_weights,
                highest=None if t.max_reward is None else rules.MAX_REWARD,
            ),
            max_reward=t.max_reward,
            template=t.template,
            refine_template=config.refiner.template or (None if _refiner_chats(config, tokenizer) else "refine_text"),
            system=t.system,
            encode_text=tokenizer.encode_bare if t.prompt_format == "text" else None,
            max_prompt_tokens=longest,
        )
        if t.prompt_format == "text" and tokenizer.chats and not dialogues.prompts()[0].messages:
            say(
                "prompts that are texts go to the model as they are, without its chat template: give messages, or "
                "task.prompt_format=chat, for a conversation"
            )
        if dialogues.too_long:
            read = len(dialogues.prompts()) + dialogues.too_long
            many = f"{dialogues.too_long} prompts of {'the first ' if dialogues.passes else ''}{read}"
            say(f"{many} were left out: they have more than {longest} tokens")
        return dialogues
    assert isinstance(data, ProblemSet)
    if data.without_tests:
        say(f"{data.without_tests} problems without tests were skipped")
    reward: Literal["adaptive", "coarse"] | UserReward
    match t.rewards[0]:
        case "adaptive" | "coarse" as name:
            reward = name
        case path:
            reward = user_reward(path, config, given, world, progress)
    task = CodeTask(
        data.problems,
        None if isinstance(reward, UserReward) else make_sandbox(config, say, world),
        tokenizer.encode_chat,
        reward=reward,
        question_template=t.template,
        refine_template=config.refiner.template,
        prompt_format=t.prompt_format,
        max_prompt_tokens=longest,
        system=t.system,
        max_sandbox_errors=config.guard.max_sandbox_errors,
        visible_tests=t.visible_tests,
        block=t.extract,
        isolate=config.sandbox.isolate,
    )
    if task.too_long:
        say(f"{task.too_long} prompts of {len(data.problems)} were left out: they have more than {longest} tokens")
    return task


def _refiner_chats(config: Config, tokenizer: ChatTokenizer) -> bool:
    """Return False if the refiner is the policy's base model and has no chat template."""
    return tokenizer.chats or config.refiner.source in ("model", "server")


def connect(task: OwnTask, config: Config, tokenizer: ChatTokenizer, longest: int) -> None:
    """Make the prompts of a user's task, of at most `longest` tokens. Raises as `refinerl.tasks.base.Task.connect`."""
    task.connect(
        tokenizer.encode_chat,
        max_prompt_tokens=longest,
        system=config.task.system,
        refine_template=config.refiner.template,
    )


def make_own_task(config: Config) -> OwnTask:
    """Make a user's task, `module:Class`, with its options. Its prompts are made when it is connected.

    Raises:
        UserError: it does not exist, or it was an object.
    """
    refuse_object(config.task.name, "task.name", "reward")
    found: type[OwnTask] = resolve("task", config.task.name)
    return found(config.task)


def count_prompts(config: Config, data: Data | None = None) -> int | None:
    """Count the prompts of the data, including those that are too long; None if they are streamed.

    Raises:
        UserError: they cannot be read.
    """
    if ":" in config.task.name:
        return sum(1 for _ in make_own_task(config).examples())
    data = load_data(config) if data is None else data
    if isinstance(data, StreamedDialogues):
        data.first(1)
        return None
    return len(data.problems) if isinstance(data, ProblemSet) else len(data)


def user_reward(
    name: str, config: Config, given: Given = NOTHING, world: World = ALONE, progress: Progress | None = None
) -> UserReward:
    """Return a user's reward function: a given one, or `module:function`.

    Raises:
        UserError: it cannot be imported.
    """
    seconds = built_in(config).reward_seconds
    if name in given.rewards:
        return UserReward(given.rewards[name], name.removeprefix(OBJECT), seconds=seconds, progress=progress)
    refuse_object(name, "task.reward", "reward")
    # A rank that hangs is ended by the others after engines.timeout; a program that calls fine_tune is never ended.
    return load_reward(name, seconds=seconds, exits=world.size == 1 and given is NOTHING, progress=progress)


def make_dialogue_reward(
    name: str, config: Config, given: Given = NOTHING, world: World = ALONE, progress: Progress | None = None
) -> UserReward | RewardModel:
    """Make a reward of the dialogue task: the reward model, a rule or a user's function."""
    r = config.reward_model
    if name != "model":
        if name.startswith("rule:"):
            seconds: float = getattr(config.task, "math_seconds", 5.0)
            # With more processes than cores, those that wait for one would exceed their limit of wall time.
            workers = min(workers_of(config, world.local_size), max(1, cores() // world.local_size))
            rule = name.removeprefix("rule:")
            limit = built_in(config).reward_seconds
            return rules.load_rule(rule, seconds=limit, math_seconds=seconds, workers=workers)
        return user_reward(name, config, given, world, progress)
    place = r.model or ""
    with explained("load reward_model.model"):
        model = load_reward_model(place, dtype=r.dtype)
        model = model.to(device_of(r.device, "reward_model.device"))
    tokenizer = ChatTokenizer.load(place, chat_template=r.chat_template, date=config.chat_template_date)
    return RewardModel(
        model,
        partial(tokenizer.encode_answered, close=is_openrlhf(model.config)),
        batch=r.batch,
        max_length=r.max_length,
        normalize=r.normalize,
    )


def workers_of(config: Config, ranks: int = 1) -> int:
    """Return how many programs each of a machine's ranks runs at once. They share `sandbox.workers`, or the cores."""
    return max(1, (config.sandbox.workers or cores()) // ranks)


def make_sandbox(config: Config, say: Say, world: World = ALONE) -> Sandbox:
    """Start the sandbox with the configured limits, and report which protections are on.

    The ranks of a machine share its cores.
    """
    s = config.sandbox
    try:
        box = Sandbox(
            workers=workers_of(config, world.local_size),
            limits=Limits(s.wall_seconds, s.cpu_seconds, s.memory_mb, s.output_kb),
            compare="strict",
            require=s.require,
            packages=s.packages,
        )
    except ValueError as error:
        raise UserError(f"sandbox.{error}") from None
    off = [protection for protection in box.isolation if not protection.on]
    say(f"sandbox: {len(box.isolation) - len(off)} of {len(box.isolation)} protections are on")
    for protection in off:
        say(f"warning: off: {protection.name} ({protection.reason}), which exposes {protection.exposed}")
    return box

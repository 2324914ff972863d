"""Checks of rewards, data, templates, models, folder and disk, before a model is loaded. A part of the wiring."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from refinerl.config import Config
from refinerl.contracts.plugins import OBJECT
from refinerl.data.apps import ProblemSet
from refinerl.data.conversations import HUB, Dialogues, StreamedDialogues
from refinerl.engines import bundled
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.report.model import is_run
from refinerl.run.given import NOTHING, Given
from refinerl.run.memory import find
from refinerl.run.tasks import built_in, load_data, user_reward
from refinerl.tasks import rules, templates
from refinerl.tasks.asking import load_question_template
from refinerl.tasks.code import COLUMNS, CodeTask
from refinerl.tasks.dialogue import DialogueTask
from refinerl.tasks.user_reward import UserReward

GIB, MIB = 2**30, 2**20


def read_data(config: Config, given: Given = NOTHING) -> ProblemSet | Dialogues | None:
    """Check what the configuration names for prompts and rewards, and read the data; None for a task of the user's.

    Raises:
        UserError: as `check_rewards` and `load_question_template`; or the data cannot be read, or lack a column that a
            reward function needs.
    """
    if given.task is not None or ":" in config.task.name:
        return None
    functions = check_rewards(config, given)
    data = load_data(config, given)
    check_columns(config, data, functions)
    return data


def check_columns(config: Config, data: ProblemSet | Dialogues, functions: Sequence[UserReward]) -> None:
    """Check that data have the columns that the reward functions and the question's template need.

    Raises:
        UserError: they lack one.
    """
    if isinstance(data, StreamedDialogues):  # its first rows are checked when the task is made
        return
    columns: Collection[str] = COLUMNS
    if not isinstance(data, ProblemSet):  # rows of JSON may have different columns, those of a table have the same
        rows = data if isinstance(data, list) else data[:1]
        columns = dict.fromkeys(name for row in rows for name in row.columns)
        task = config.task
        if task.system and getattr(task, "prompt_format", "") == "text" and isinstance(data[0].prompt, str):
            raise UserError(
                "task.system is for conversations, and prompts that are texts go to the model without it: choose "
                "task.prompt_format=chat, or leave out task.system"
            )
        if isinstance(task, DialogueTask.Options) and task.template is not None:
            load_question_template(task.template, data[0].columns, text=task.prompt_format == "text")
    for function in functions:
        function.check(columns)


def check_rewards(config: Config, given: Given = NOTHING) -> list[UserReward]:
    """Check the templates, rules and reward functions of a built-in task; return the functions.

    Raises:
        UserError: a reward function or a rule does not exist, a rule needs a package that is not installed, or a
            template cannot be used.
    """
    if given.task is not None or ":" in config.task.name:
        return []
    check_templates(config)
    for package in config.sandbox.packages if config.judges_programs else ():
        if not package.isidentifier() or importlib.util.find_spec(package) is None:
            raise UserError(f"sandbox.packages must name installed packages, such as [numpy], got {package!r}")
    names = built_in(config).rewards
    functions = [user_reward(name, config, given) for name in names if is_function(name)]
    chosen = [name.removeprefix("rule:") for name in names if name.startswith("rule:")]
    return [*functions, *(rules.load_rule(rule) for rule in chosen)]


def is_function(reward: str) -> bool:
    """True if a reward's name is that of a function of the user's."""
    return ":" in reward and not reward.startswith("rule:")


def check_templates(config: Config) -> None:
    """Check the templates of the task and of the refiner.

    Raises:
        UserError: one does not exist, or uses a variable that it may not use.
    """
    if config.refiner.template is not None and config.rewrites:
        templates.load_refine_template(config.refiner.template)
    task = config.task
    if isinstance(task, CodeTask.Options) and task.template is not None and task.prompt_format == "chat":
        templates.load_template(task.template, templates.TASK_VARIABLES)


def check_chat(config: Config, tokenizer: ChatTokenizer) -> None:
    """Check that the tokenizer's chat template renders a question, if the run's prompts are conversations.

    Raises:
        UserError: it has none, or it refuses a system message before a question.
    """
    task = config.task
    if isinstance(task, CodeTask.Options) or (isinstance(task, DialogueTask.Options) and task.prompt_format == "chat"):
        system = [] if task.system is None else [{"role": "system", "content": task.system}]
        tokenizer.encode_chat([*system, {"role": "user", "content": "Hello"}])


def check_models(config: Config, given: Given = NOTHING) -> None:
    """Check that the models that are named by their folder are there; names of the hub are not looked up.

    Raises:
        UserError: there is no such folder, or it holds no model.
    """
    for knob, name in _models(config, given):
        if name.lower() in bundled.NAMES or name.startswith(OBJECT):
            continue
        folder = Path(name)
        if folder.is_dir():
            if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
                turn = "give its final/ or a checkpoint-N/" if is_run(folder) else "give the folder of a saved model"
                raise UserError(f"cannot load model {name!r}: the folder of {knob} has no config.json; {turn}")
        elif name.startswith(("/", ".", "~")) or name.count("/") > 1:
            raise UserError(
                f"cannot load model {name!r}: there is no such folder; give {knob} the folder of a saved model, a hub "
                f"id, 'miniature' or {bundled.NAME!r}"
            )


def on_hub(config: Config) -> list[str]:
    """List the knobs with names of the hub, as `model=OWNER/NAME`, which no check looks up: that needs a network."""
    knobs = {"task.path": str(getattr(config.task, "path", ""))}
    if config.evaluate.every:
        knobs |= {"evaluate.path": str(config.evaluate.path), "evaluate.data": str(config.evaluate.data)}
    data = [f"{knob}={path}" for knob, path in knobs.items() if path.startswith(HUB)]
    models = [f"{knob}={name}" for knob, name in _models(config, NOTHING) if not _is_here(name)]
    return [*data, *models]


def _is_here(model: str) -> bool:
    return model.lower() in bundled.NAMES or Path(model).is_dir()


def _models(config: Config, given: Given) -> Iterator[tuple[str, str]]:
    """Iterate over (knob, name) of the models that a run loads."""
    if given.model is None and given.adapted is None:
        yield "model", config.model
    if config.refines and config.refiner.source == "model":
        yield "refiner.model", config.refiner.model or ""
    if config.needs_critic:
        yield "critic.model", config.critic.model
    if config.scored_by_model:
        yield "reward_model.model", config.reward_model.model or ""


def check_tokenizer(config: Config) -> None:
    """Check the tokenizer of a model that is a folder here; others are checked when the run starts.

    Raises:
        UserError: it cannot be loaded, or as `check_chat`.
    """
    if config.model.lower() not in bundled.NAMES and os.path.isdir(config.model):
        check_chat(config, ChatTokenizer.load(config.model, chat_template=config.chat_template))


def nearest(folder: Path) -> Path:
    """Return the folder, or the one above it that exists; it may be a file."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))


def check_writable(folder: Path) -> None:
    """Check that a run's folder can be created.

    Raises:
        UserError: it would lie below a file, or in a folder that this user may not write to.
    """
    there = nearest(folder)
    if not there.is_dir():
        raise UserError(f"cannot create {folder}: {there} is a file; choose another --output-dir, such as runs/a")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot create {folder}: {there} is not writable; choose another --output-dir, such as runs/a")


def check_disk(config: Config, folder: Path) -> None:
    """Check that the disk has room for the checkpoints of a run.

    Raises:
        UserError: by arithmetic it has not.
    """
    there = nearest(folder)
    needed, free = disk_need(config), shutil.disk_usage(there).free
    if needed is not None and needed > free:
        raise UserError(
            f"the checkpoints of this run need {size(needed)}, by arithmetic, and the disk of {there} has {size(free)} "
            "free: free some, choose another --output-dir, or checkpoint.keep=1 or lora.rank=16"
        )


def size(count: int) -> str:
    """Return a number of bytes in GiB, or in MiB below one."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def disk_need(config: Config) -> int | None:
    """Return the bytes of all files with weights that a run keeps at once; None if the model's size is not known.

    Checkpoints hold the model, float32 weights and two moments for the optimizer. In addition to `checkpoint.keep`
    there are the one that is being written, the best one if there are evaluations, and final/. A step writes at most
    one.
    """
    policy = find(config.model)
    if policy is None:
        return None
    width = 4 if config.dtype == "float32" else 2
    lora = config.lora
    trained = policy.adapter(lora.rank, lora.targets) if lora.rank else policy.parameters
    checkpoint = trained * (12 + width)
    if config.needs_critic:
        critic = find(config.critic.model)
        checkpoint += 12 * (policy if critic is None else critic).parameters
    kept = min(config.checkpoint.keep + 1 + (config.evaluate.every > 0), config.trainer.steps)
    merged = policy.parameters * width if lora.merge else 0
    return kept * checkpoint + trained * width + merged

"""The evaluation during training: a benchmark, or held-out rows of the run's task. A part of the wiring."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from refinerl.benchmarks.evaluator import Evaluator
from refinerl.benchmarks.held_out import HeldOut
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.benchmarks.prompting import make_prompting
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import Suite
from refinerl.config import Config
from refinerl.contracts import Clock, Generator, Task, World
from refinerl.contracts.options import TaskOptions
from refinerl.contracts.plugins import resolve
from refinerl.data.apps import ProblemSet
from refinerl.data.tables import is_saved
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.records import Sampling
from refinerl.run import preflight
from refinerl.run.given import NOTHING, Given
from refinerl.run.tasks import Data, Say, connect
from refinerl.sandbox import Sandbox
from refinerl.tasks.base import Task as OwnTask
from refinerl.tasks.code import CodeTask
from refinerl.tasks.dialogue import DialogueTask


class Evaluation(Protocol):
    """An evaluation of the policy; every rank makes every call."""

    def metrics(self) -> dict[str, float]:
        """Evaluate; return metrics such as `evaluate/pass@1`."""


def evaluate(evaluation: Evaluation, clock: Clock, world: World) -> dict[str, float]:
    """Evaluate the policy, timed as the phase `evaluate`; all ranks return the first one's metrics.

    A slow test may end differently on another rank, and all ranks have to agree on the best step.
    """
    with clock("evaluate"):
        agreed: dict[str, float] = world.all_gather_object(evaluation.metrics())[0]
        return agreed


def score_of(metrics: Mapping[str, float]) -> float | None:
    """Return the score by which the best step is chosen: pass@1, or the reward of a task without a highest one.

    None if there was no evaluation, or if no held-out row had a reward.
    """
    score = metrics.get("evaluate/pass@1", metrics.get("evaluate/reward", math.nan))
    return None if math.isnan(score) else score


def read_held_out(config: Config, given: Given = NOTHING) -> Data | None:
    """Read the rows of `evaluate.path`; None if no evaluation uses it, or if the task is a class that reads them.

    Raises:
        UserError: the file does not exist, has no rows, has rows of another task, or lacks a column that a reward
            needs; or as `preflight.check_rewards`.
    """
    options = held_out_options(config)
    if not isinstance(options, CodeTask.Options | DialogueTask.Options):
        return None
    try:
        found = options.read()
    except UserError as error:
        raise _blamed(error, config) from error
    functions = preflight.check_rewards(config, given)
    try:
        preflight.check_columns(config, found, functions)
    except UserError as error:
        raise _blamed(error, config) from error
    return found


def read_suite(config: Config) -> Suite | None:
    """Read the benchmark of the evaluations during training; None if there is none.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    e = config.evaluate
    if not e.every or e.benchmark == "task":
        return None
    try:
        return load_suite(Choice(e.benchmark, e.data, limit=e.limit))
    except UserError as error:
        message = str(error).replace("--data", "evaluate.data")
        raise UserError(message if e.data is None else f"evaluate.data = {e.data}: {message}") from error


def held_out_options(config: Config) -> TaskOptions | None:
    """Return the options of the run's task with `evaluate.path` as its data; None if no evaluation uses it."""
    if not config.evaluate.every or config.evaluate.benchmark != "task":
        return None
    e, task = config.evaluate, config.task
    changed: dict[str, Any] = {"path": e.path}
    if isinstance(task, DialogueTask.Options):
        subset = None if is_saved(Path(e.path or "")) else task.subset
        changed |= {"split": e.split or task.split, "subset": e.subset or subset, "streaming": False}
    return task.model_copy(update=changed)


def make_held_out(
    config: Config,
    task: Task,
    data: Data | None,
    generator: Generator,
    tokenizer: ChatTokenizer,
    say: Say,
    room: int,
    world: World,
) -> HeldOut:
    """Make the evaluation on held-out rows: the run's task, with its reward, over the rows of `evaluate.path`.

    Args:
        data: the rows that `read_held_out` has read.
        room: the maximum number of tokens of a prompt.
    """
    e, options = config.evaluate, held_out_options(config)
    longest = min(room, config.task.max_prompt_tokens or room)
    try:
        if isinstance(task, CodeTask) and isinstance(data, ProblemSet):
            task, rows = task.over(data.problems, max_prompt_tokens=longest), len(data.problems)
        elif isinstance(task, DialogueTask) and data is not None and not isinstance(data, ProblemSet):
            task = task.over(data, max_prompt_tokens=longest)
            rows = len(task.prompts()) + task.too_long
        else:
            task = resolve("task", config.task.name)(options)
            if isinstance(task, OwnTask):
                connect(task, config, tokenizer, longest)
            rows = len(task.prompts()) + getattr(task, "too_long", 0)
    except UserError as error:
        raise _blamed(error, config) from error
    if too_long := getattr(task, "too_long", 0):
        say(f"evaluate: {too_long} rows of {rows} were left out: they have more than {longest} tokens")
    sampling = Sampling(e.max_tokens, e.temperature, n=e.n, stop=config.generation.stop)
    return HeldOut(task, generator, sampling, config.seed, world, e.limit, place(config))


def _blamed(error: UserError, config: Config) -> UserError:
    """Say that an error concerns `evaluate.path`, and name the knobs that choose from it."""
    message = str(error)
    for knob in ("split", "subset"):
        message = message.replace(f"task.{knob}", f"evaluate.{knob}")
    return UserError(f"{place(config)}: {message}")


def place(config: Config) -> str:
    """Name the held-out rows, which are read as the run's task reads its data."""
    return f"evaluate.path = {config.evaluate.path}, read as task.name={config.task.name}"


def make_benchmark(
    config: Config, suite: Suite, generator: Generator, tokenizer: ChatTokenizer, box: Sandbox, say: Say, world: World
) -> Evaluator:
    """Make the benchmark that runs during training, with the policy's own generator. Each rank does its share."""
    e = config.evaluate
    for note in suite.notes:
        say(f"evaluate: {suite.name}: {note}")
    prompting = make_prompting(e.prompting, suite, tokenizer.encode, tokenizer.encode_chat, tokenizer.beginning)
    sampling = Sampling(e.max_tokens, e.temperature, n=e.n, stop=prompting.stops)
    return Evaluator(Scorer(suite, box), generator, prompting, sampling, config.seed, world)

"""The output of `--dry-run`: the resolved configuration and a plan. Nothing is started."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from refinerl.config import Config
from refinerl.data.conversations import HUB
from refinerl.engines import devices
from refinerl.engines.launched import Launched
from refinerl.errors import UserError
from refinerl.report.metrics import read_metrics, training
from refinerl.run import preflight, recipe
from refinerl.run.evaluation import read_held_out, read_suite
from refinerl.run.placement import check_ranks, planned_ranks
from refinerl.run.plan_memory import memory
from refinerl.run.tasks import count_prompts
from refinerl.run.trackers.base import why_not
from refinerl.tasks.templates import FEEDBACK, load_refine_template

RUNS = Path("runs")
"""The folder of runs that name none."""


def show(config: Config, console: Console, notes: Sequence[str] = (), folder: Path | None = None) -> None:
    """Print the configuration as YAML, the plan and `notes` as comments, so that the output is itself a recipe.

    Raises:
        UserError: the data cannot be read, or the ranks cannot share the work.
    """
    if (ranks := planned_ranks(config)) > 1:
        check_ranks(config, ranks)
    if folder is not None:
        preflight.check_writable(folder)
    if not str(config.evaluate.path).startswith(HUB):
        read_held_out(config)
    if config.evaluate.data is not None and not config.evaluate.data.startswith(HUB):
        read_suite(config)
    prompts = None
    own = ":" in config.task.name
    if own or not str(getattr(config.task, "path", "")).startswith(HUB):
        prompts = count_prompts(config, None if own else preflight.read_data(config))
    else:
        preflight.check_rewards(config)
    preflight.check_models(config)
    preflight.check_tokenizer(config)
    console.print(recipe.to_yaml(config), highlight=False, markup=False, end="")
    for line in (*plan(config, prompts, folder or RUNS), *notes):
        console.print(f"# {line}", highlight=False, markup=False, soft_wrap=True)


def plan(config: Config, prompts: int | None, folder: Path = RUNS) -> Iterator[str]:
    """Describe in lines what a run would do: models, engines, memory, steps.

    Args:
        config: the configuration.
        prompts: the number of prompts, None if they were not counted.
        folder: the run's.
    """
    trainer, algorithm = config.trainer, config.algorithm
    constraints = " and ".join(constraint.name for constraint in config.held)
    samples = algorithm.samples_per_prompt
    updates = algorithm.epochs * (trainer.batch // trainer.minibatch)
    per_step = trainer.batch // samples
    yield f"plan: {algorithm.name} with constraint {constraints} on {config.model}"
    yield from _engines(config)
    yield from _absent(config)
    if unknown := preflight.on_hub(config):
        yield f"not checked, since a plan does not ask the hub: {', '.join(unknown)}"
    yield (
        f"steps: {trainer.steps}, each of {per_step} prompts × {samples} samples and {updates} optimizer "
        f"{'step' if updates == 1 else 'steps'}"
    )
    if prompts is None:
        when = (
            "read during the run"
            if getattr(config.task, "streaming", False)
            else "read from the hub when the run starts"
        )
        yield f"data: {getattr(config.task, 'path', '')}, {when}"
    else:
        passes = trainer.steps * per_step / prompts
        yield f"data: {prompts} prompts, {passes:.1f} passes (more where dynamic sampling draws again)"
    if _tests_share_a_process(config):
        yield (
            "sandbox: all tests of a program whose function is called share a process, so that it may keep state and "
            "sees the inputs of all (sandbox.isolate=test separates them)"
        )
    if config.scored_by_model:
        yield f"reward: the model {config.reward_model.model}"
    else:
        yield f"reward: {', '.join(config.task.rewards) or f'that of {config.task.name}'}"
    yield from memory(config)
    yield from _disk(config, folder)
    yield from _time(config, folder)


def _disk(config: Config, folder: Path) -> Iterator[str]:
    """Compare the size of the checkpoints, by arithmetic, with the free disk."""
    needed = preflight.disk_need(config)
    there = preflight.nearest(folder)
    free = shutil.disk_usage(there).free
    if needed is None:
        yield f"disk: unknown, as the size of {config.model} is; {preflight.size(free)} are free in {there}"
        return
    verdict = "" if needed <= free else ", which is too little"
    for_files = f"{preflight.size(needed)} for checkpoints and final/, by arithmetic"
    yield f"disk: {for_files}; {preflight.size(free)} are free in {there}{verdict}"


def _time(config: Config, folder: Path) -> Iterator[str]:
    """Estimate the time from the steps that a run has behind it; nothing is known of a new one."""
    try:
        rows = training(read_metrics(folder))
    except UserError:
        rows = []
    seconds = [row["time/step"] for row in rows if row.get("time/step")]
    if not seconds:
        yield "time: unknown before the first step; the step line tells the time left"
        return
    left = max(0, config.trainer.steps - len(rows))
    mean = sum(seconds) / len(seconds)
    yield f"time: {left} steps are left, {left * mean / 60:.1f} minutes at {mean:.1f} s each, as the {len(rows)} before"


def _tests_share_a_process(config: Config) -> bool:
    if config.sandbox.isolate != "program" or config.task.name != "code" or not config.task.bounded:
        return False
    return FEEDBACK not in load_refine_template(config.refiner.template or "refine_code").variables


def _engines(config: Config) -> Iterator[str]:
    lora, engine = config.lora, config.engines.generator
    if engine == "transformers":
        yield f"engines: transformers generates, {config.engines.trainer} trains, {_ranks(config)}"
    else:
        here = "" if importlib.util.find_spec("vllm") else " (not installed here)"
        count = "two engines" if config.refiner_apart else "one engine"
        yield f"engines: vLLM{here} generates on {count}, {config.engines.trainer} trains, {_ranks(config)}"
    if lora.rank:
        yield f"policy: a LoRA adapter of rank {lora.rank}; without it the same weights are reference and refiner"
    refiner = config.refiner
    if config.probing:
        yield f"probe: every {refiner.probe_every} steps the refiner refines, is measured and teaches nothing"
    if config.refines and refiner.source != "reference":
        who = {
            "policy": "the policy itself",
            "model": f"the model {refiner.model}",
            "server": f"{refiner.model or 'the first model'} at {refiner.url}, whose memory is not counted",
        }
        yield f"refiner: {who[refiner.source]}"


def _absent(config: Config) -> Iterator[str]:
    """Name the device and the trackers that would not work here; the plan may be for another machine."""
    places = {"device": config.device, **({"reward_model.device": config.reward_model.device} if config.scored_by_model
              else {})}  # fmt: skip
    for knob, device in places.items():
        try:
            devices.resolve(device, knob)
        except UserError as error:
            yield f"not here: {error}"
    for name in config.telemetry.trackers:
        if reason := why_not(name):
            yield f"not here: telemetry.trackers={name}, {reason}"


def _ranks(config: Config) -> str:
    ranks = planned_ranks(config)
    if Launched.read() is not None:
        return f"on {ranks} ranks"
    if ranks == 1:
        return "in this process"
    return f"on {ranks} ranks (deepspeed --num_accelerators {ranks} --module refinerl.train …)"

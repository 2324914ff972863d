"""The output of `--dry-run`: the resolved configuration and a plan. Nothing is started."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

from rich.console import Console

from refinerl.config import Config
from refinerl.data.conversations import HUB
from refinerl.engines.launched import Launched
from refinerl.run import recipe
from refinerl.run.placement import check_ranks, planned_ranks
from refinerl.run.plan_memory import memory
from refinerl.run.tasks import count_prompts
from refinerl.tasks.templates import FEEDBACK, load_refine_template


def show(config: Config, console: Console, notes: Sequence[str] = ()) -> None:
    """Print the configuration as YAML, the plan and `notes` as comments, so that the output is itself a recipe.

    Raises:
        UserError: the data cannot be read, or the ranks cannot share the work.
    """
    if (ranks := planned_ranks(config)) > 1:
        check_ranks(config, ranks)
    prompts = None
    if not str(getattr(config.task, "path", "")).startswith(HUB) or ":" in config.task.name:
        prompts = count_prompts(config)
    console.print(recipe.to_yaml(config), highlight=False, markup=False, end="")
    for line in (*plan(config, prompts), *notes):
        console.print(f"# {line}", highlight=False, markup=False, soft_wrap=True)


def plan(config: Config, prompts: int | None) -> Iterator[str]:
    """Describe in lines what a run would do: models, engines, memory, steps.

    `prompts` is the number of prompts, None if they were not counted.
    """
    trainer, algorithm = config.trainer, config.algorithm
    constraints = " and ".join(constraint.name for constraint in config.held)
    samples = algorithm.samples_per_prompt
    updates = algorithm.epochs * (trainer.batch // trainer.minibatch)
    per_step = trainer.batch // samples
    yield f"plan: {algorithm.name} with constraint {constraints} on {config.model}"
    yield from _engines(config)
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
    yield from memory(config)


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


def _ranks(config: Config) -> str:
    ranks = planned_ranks(config)
    if Launched.read() is not None:
        return f"on {ranks} ranks"
    if ranks == 1:
        return "in this process"
    return f"on {ranks} ranks (deepspeed --num_accelerators {ranks} --module refinerl.train …)"

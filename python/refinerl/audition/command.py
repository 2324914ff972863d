"""Measure a refiner before a run: its improvements and their cost, compared with fresh answers.

python -m refinerl.audition [RECIPE [PART …]] [key=value …] [--n N] [--against TEMPLATE_OR_MODEL …] [--output FILE.json]

The recipe's model samples N answers y, in groups as in the run. Each refiner rewrites them into ỹ: the recipe's, for
programs the same one with or without `$feedback`, and those of --against. There are two controls. The best sibling is
the best other answer to the same question, which costs nothing. Fresh answers are sampled in rounds until they have as
many tokens as the recipe's refiner generated: a refiner that does not beat them is not worth its price. Models run in
this process, whichever engines the recipe selects.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from refinerl import __version__
from refinerl.audition import trial
from refinerl.config import Config
from refinerl.contracts import Author, Task
from refinerl.data.terminal import answered
from refinerl.engines import devices
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.errors import TrainingStoppedError
from refinerl.loop.author import ModelAuthor
from refinerl.loop.rollout import Roller
from refinerl.loop.stream import PromptStream
from refinerl.records import RolloutGroup, Sampling
from refinerl.report import export
from refinerl.run import arguments as command_line
from refinerl.run import placement, recipe, trainers
from refinerl.run import tasks as rewards
from refinerl.run.generators import make_refiner, make_server, translation
from refinerl.run.telemetry import Telemetry
from refinerl.sandbox import SandboxError
from refinerl.tasks import templates
from refinerl.tasks.code import CodeTask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if the sandbox or a server failed, 2 for bad input, 130 if interrupted."""
    args = _parser().parse_intermixed_args(arguments)
    return answered(lambda: _run(args, Console()))


def _run(args: argparse.Namespace, console: Console) -> int:
    name, overrides = command_line.split(args.words)
    config = recipe.load(name, overrides)
    if args.output is not None:
        export.check_place(args.output)
    try:
        columns = audition(config, args.n, args.against, console)
    except SandboxError as error:
        raise TrainingStoppedError(str(error)) from error
    trial.show(columns, console, args.examples)
    if args.output is not None:
        found = {"schema": 1, "n": args.n, "columns": [column.as_json() for column in columns]}
        export.save(args.output, json.dumps(found | {"config": config.model_dump(mode="json")}, indent=1))
    return 0


@dataclass(frozen=True)
class _Voice:
    """A loaded model for generation, and its tokenizer."""

    generator: TransformersGenerator
    tokenizer: ChatTokenizer

    def author(self, policy: ChatTokenizer) -> ModelAuthor:
        """Return the model as a refiner of responses in another tokenizer's tokens."""
        return ModelAuthor(self.generator, self.tokenizer.encode_chat, redraft=translation(policy, self.tokenizer))


def audition(config: Config, n: int, against: Sequence[str], console: Console) -> list[trial.Column]:
    """Measure the recipe's refiner, the others and the controls; the recipe's is the first, fresh answers are the last.

    Raises:
        UserError: a model, a template or the data cannot be used.
    """
    placement.check_abilities(config, devices.claim(config.device))
    sandbox = config.sandbox.model_copy(update={"isolate": "test"})  # a refiner with $feedback reads the same answers
    config = config.model_copy(update={"sandbox": sandbox})
    with ExitStack() as stack:
        telemetry = Telemetry(Path(), console, 1)
        wanted = [_template(name) if _is_template(name) else name for name in against]
        reference = _voice(config, config.model, config.chat_template, telemetry)
        room = reference.generator.context_length - config.generation.max_tokens
        task = rewards.make_task(config, reference.tokenizer, telemetry.say, room)
        stack.callback(task.close)
        sampling = Sampling(config.generation.max_tokens, config.generation.temperature, stop=config.generation.stop)
        with telemetry.step(1):
            size = min(n, config.algorithm.samples_per_prompt)
            prompts = PromptStream(task.prompts(), config.seed).draw(-(-n // size))
            roller = Roller(reference.generator, task, replace(sampling, n=size), config.seed, telemetry.clock)
            groups = first_answers(roller.rollout(prompts, step=trial.STEP), n)
            columns = []
            own = _author(config, reference, telemetry)
            for name, template in [("refiner", None), *_told(config, task, wanted), *((name, name) for name in wanted)]:
                another = template is not None and not _is_template(template)
                refiner = make_refiner(
                    config,
                    _voice(config, name, None, telemetry).author(reference.tokenizer) if another else own,
                    task if template is None or another else task.refined_by(template),
                    reference.tokenizer,
                    telemetry.clock,
                    context=reference.generator.context_length,
                    expect=telemetry.expect,
                )
                columns.append(trial.refined(name, refiner, groups))
            if size > 1:
                columns.append(trial.siblings(groups))
            columns.append(trial.fresh(roller, groups, columns[0]))
    return columns


def first_answers(groups: Sequence[RolloutGroup], n: int) -> list[RolloutGroup]:
    """Keep the first n answers of all groups together; the last group may become smaller."""
    kept = []
    for group in groups:
        if n > 0:
            kept.append(replace(group, rollouts=group.rollouts[:n]))
        n -= len(group.rollouts)
    return kept


PLAIN, TOLD = "refine_code", "refine_code_feedback"


def _told(config: Config, task: Task, wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Return the column name and template for the recipe's refiner with feedback, or without if the recipe has it."""
    if not isinstance(task, CodeTask) or not task.has_feedback:
        return []
    uses = templates.FEEDBACK in templates.load_refine_template(config.refiner.template or PLAIN).variables
    name, template = ("without feedback", PLAIN) if uses else ("with feedback", TOLD)
    return [] if template in wanted else [(name, template)]


def _author(config: Config, reference: _Voice, telemetry: Telemetry) -> Author:
    """Return the recipe's refiner; before the first step the policy equals the reference."""
    match config.refiner.source:
        case "model":
            voice = _voice(config, config.refiner.model or "", config.refiner.chat_template, telemetry)
            return voice.author(reference.tokenizer)
        case "server":
            return make_server(config, reference.tokenizer, telemetry.tick, telemetry.say)
        case _:
            return ModelAuthor(reference.generator, reference.tokenizer.encode_request)


def _voice(config: Config, name: str, chat_template: str | None, telemetry: Telemetry) -> _Voice:
    with telemetry.busy(f"load {name}"):
        place = resolve_model(name)
        tokenizer = ChatTokenizer.load(place, chat_template=chat_template, date=config.chat_template_date)
        model = load_model(place, dtype=config.dtype).to(trainers.device_of(config.device))
    generator = TransformersGenerator(
        model,
        tokenizer,
        max_rows=config.generation.max_batch,
        guesses=config.refiner.drafts,
        progress=telemetry.tick,
        say=telemetry.say,
    )
    return _Voice(generator, tokenizer)


def _is_template(name: str) -> bool:
    return name.endswith(".txt") or name in templates.names()


def _template(name: str) -> str:
    """Return the template's name after checking it, so that a bad template fails before a model is loaded.

    Raises:
        UserError: the template does not exist or is invalid.
    """
    templates.load_refine_template(name)
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.audition",
        usage="%(prog)s [RECIPE [PART ...]] [key=value ...] [--n N] [--against NAME ...] [--output FILE.json]",
        description="Try a refiner before a run, beside fresh answers at the same price.",
    )
    default = recipe.DEFAULT_RECIPE
    words = f"a recipe (default: {default}), parts to lay over it, then overrides, such as refiner.template=mine.txt"
    parser.add_argument("words", nargs="*", metavar="RECIPE, PART, key=value", help=words)
    parser.add_argument("--n", type=_count, default=64, help="answers to refine (default: 64)")
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="NAME", help="templates or models to compare with"
    )
    parser.add_argument("--examples", type=int, default=2, metavar="K", help="rewrites to show for each (default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the results here")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    return parser


def _count(text: str) -> int:
    number: Any = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return int(number)

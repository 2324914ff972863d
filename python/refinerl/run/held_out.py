"""The evaluation of a run's model on held-out rows, with the run's own reward, after the run.

python -m refinerl.evaluate RUN --benchmark task [--data FILE] [--split S] [--n N --temperature T] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from refinerl.benchmarks.arguments import TASK, check_top_p
from refinerl.benchmarks.held_out import HeldOut
from refinerl.benchmarks.journal import Journal
from refinerl.benchmarks.model import ROWS, Weights, fingerprint, make_generator, own_type, versions
from refinerl.config import Config
from refinerl.contracts import World
from refinerl.data.files import write
from refinerl.data.tables import has_splits
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.records import Sampling
from refinerl.report.model import find_model
from refinerl.report.schema import SCHEMA
from refinerl.run import recipe
from refinerl.run.command import today
from refinerl.run.evaluation import held_out_options, place
from refinerl.run.tasks import make_task


def evaluate_run(options: argparse.Namespace, world: World, device: Any, console: Console) -> int:
    """Evaluate a run's model on the rows of `--data`, or on those of its `evaluate.path`; return the exit code 0.

    `options` are those of `refinerl.evaluate`; `options.model` is a run, or the folder of a model in one.

    Raises:
        UserError: the folder belongs to no run, no rows are named, they cannot be read or scored, or `--output` has
            another evaluation.
    """
    started = time.perf_counter()
    run, model = _found(Path(options.model))
    options.model = str(model)
    config = _config(run, options, str(device))
    settings = _settings(run, model, config, options)
    Journal(options.output).refuse_others(settings)
    rows = place(config) if options.data is None else f"--data {options.data}, read as task.name={config.task.name}"
    say = _sayer(console)
    tokenizer = ChatTokenizer.load(model, date=config.chat_template_date or today())
    weights = Weights(str(model), tokenizer, settings["dtype"], options.max_batch or ROWS[options.engine])
    e = config.evaluate
    with ExitStack() as stack:
        generator = make_generator(options, weights, device, lambda done: None, stack)
        room = generator.context_length - e.max_tokens
        if room < 1:
            raise UserError(f"--max-tokens {e.max_tokens} leaves no room for a prompt in {generator.context_length}")
        try:
            task = make_task(config, tokenizer, say, room, world)
        except UserError as error:
            raise UserError(f"{rows}: {_as_options(str(error))}") from error
        stack.callback(task.close)
        sampling = Sampling(e.max_tokens, e.temperature, top_p=options.top_p, n=e.n, stop=config.generation.stop)
        found = HeldOut(task, generator, sampling, config.seed, world, e.limit, rows).metrics()
        count, total = min(e.limit or len(task.prompts()), len(task.prompts())), len(task.prompts())
    if world.rank:
        return 0
    say(f"rows: {count}" if count == total else f"rows: the first {count} of {total}")
    for line in lines(found):
        say(line)
    if options.output is not None:
        facts = {**settings, "ranks": world.size, "seconds": round(time.perf_counter() - started, 1)}
        values = {name: None if math.isnan(value) else value for name, value in found.items()}
        options.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "metrics": values, **facts}, indent=1, ensure_ascii=False)
        write(options.output / "summary.json", text + "\n")
        say(f"{options.output}: summary.json")
    return 0


def _settings(run: Path, model: Path, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the results depend on, for summary.json; another evaluation's is not overwritten."""
    e = config.evaluate
    return {
        "benchmark": TASK,
        "run": str(run),
        "model": str(model),
        "weights": fingerprint(model),
        "rows": str(e.path),
        "split": getattr(config.task, "split", None),
        "subset": getattr(config.task, "subset", None),
        "limit": e.limit,
        "n": e.n,
        "temperature": e.temperature,
        "top_p": options.top_p,
        "max_tokens": e.max_tokens,
        "seed": config.seed,
        "dtype": own_type(str(model)) if options.dtype == "auto" else options.dtype,
        "engine": options.engine,
        "versions": versions(options.engine),
    }


def _as_options(message: str) -> str:
    """Name options in a message in place of knobs: of a run, they choose the data that it is trained on."""
    for knob in ("split", "subset"):
        message = message.replace(f"task.{knob}=", f"--{knob} ").replace(f"task.{knob}", f"--{knob}")
    return message


def lines(found: Mapping[str, float]) -> list[str]:
    """Describe held-out metrics, each with its interval if it has one.

    >>> lines({"evaluate/pass@1": 0.5, "evaluate/pass@1_low": 0.4, "evaluate/pass@1_high": 0.6})
    ['pass@1: 50.0% (95 % interval 40.0% to 60.0%)']
    """
    told = []
    for name, value in found.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in found:
            continue
        if math.isnan(value):
            told.append(f"{name.removeprefix('evaluate/')}: none, because no row has one")
            continue
        form = "{:.1%}" if name.endswith("pass@1") else "{:.4g}"
        low, high = (found.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
        interval = "" if math.isnan(low) else f" (95 % interval {form.format(low)} to {form.format(high)})"
        told.append(f"{name.removeprefix('evaluate/')}: {form.format(value)}{interval}")
    return told


def _found(place: Path) -> tuple[Path, Path]:
    """Return the run's folder and the model's, for a run or for the folder of a model in one."""
    if (place / "config.yaml").is_file():
        return place, find_model(place)[0]
    if (place.absolute().parent / "config.yaml").is_file():
        if not place.is_dir():
            raise UserError(
                f"there is no folder {place}: give the run's folder, or RUN/checkpoint-N of one of its checkpoints"
            )
        return place.absolute().parent, place
    raise UserError(
        f"--benchmark task asks and judges as a run does, and {place} is neither a run nor the folder of a model in "
        "one: give the run's folder, or RUN/checkpoint-N"
    )


def _config(run: Path, options: argparse.Namespace, device: str) -> Config:
    """Return the run's configuration with the held-out rows as its data; they may be those of its training."""
    config = recipe.load_run(run, [f"reward_model.device={device}"])
    e = config.evaluate
    if options.data is None and e.path is None:
        raise UserError(
            f"{run} was not evaluated on held-out rows: name them with --data FILE, rows like those of its task.path"
        )
    if "path" not in type(config.task).model_fields:
        raise UserError(f"task.name={config.task.name} of {run} reads no file: its options have no `path`")
    same = options.data is None or os.path.realpath(options.data) == os.path.realpath(e.path or "")
    chosen = {"every": 1, "benchmark": "task", "limit": options.limit}
    if e.benchmark == "task":
        chosen["limit"] = options.limit or (e.limit if same else None)
    else:
        chosen |= {"n": 1, "temperature": 0.0, "max_tokens": config.generation.max_tokens}
    if options.data is not None:
        chosen |= {"path": options.data}
        if not same:  # else the split that the run measured
            chosen |= {"split": None, "subset": None}
    for name in ("split", "subset"):
        if (value := getattr(options, name)) is not None:
            path = str(chosen.get("path", e.path))
            if name not in type(config.task).model_fields or not has_splits(path):
                raise UserError(f"--{name} is for data sets, and {path} has none: leave it out")
            chosen |= {name: value}
    if options.max_tokens:
        chosen |= {"max_tokens": options.max_tokens}
    e = e.model_copy(update=chosen)
    e = e.model_copy(update=_sampled(options.n, options.temperature, e.n, e.temperature))
    check_top_p(options.top_p, e.temperature)
    config = config.model_copy(update={"evaluate": e, "seed": config.seed if options.seed is None else options.seed})
    return config.model_copy(update={"task": held_out_options(config)})


def _sampled(n: int | None, temperature: float | None, own_n: int, own_temperature: float) -> dict[str, float]:
    """Return how answers are sampled: as the options say, and where they say nothing, as the run does.

    Raises:
        UserError: several samples would be greedy.
    """
    temperature = own_temperature if temperature is None else temperature
    if temperature == 0 and n is not None and n > 1:
        raise UserError(f"--n {n} needs a --temperature above 0: greedy samples are all the same")
    return {"n": 1 if temperature == 0 else n or own_n, "temperature": temperature}


def _sayer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)

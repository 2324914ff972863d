"""pass@k on HumanEval(+), MBPP(+), APPS and LiveCodeBench, of a model or of existing samples.

python -m refinerl.evaluate MODEL|RUN --benchmark humaneval+ [--data DIR] [--engine vllm] [--output DIR]
python -m refinerl.evaluate RUN --benchmark task [--data FILE]    held-out rows, asked and judged as in the run
python -m refinerl.evaluate --samples FILE --benchmark humaneval+ [--data DIR] [--output DIR]
torchrun --nproc-per-node 8 -m refinerl.evaluate MODEL …          each rank does its share of the tasks
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.console import Console

from refinerl.benchmarks import failures
from refinerl.benchmarks import results as output
from refinerl.benchmarks.arguments import TASK, parse
from refinerl.benchmarks.evaluator import Evaluator, deal, gathered
from refinerl.benchmarks.journal import Journal
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.benchmarks.model import Model, describe, make_generator, versions
from refinerl.benchmarks.progress import Progress
from refinerl.benchmarks.samples import counts, read_samples
from refinerl.benchmarks.scoring import BATCH, Scorer
from refinerl.benchmarks.suite import Result, Sample, Suite, Task
from refinerl.contracts import World
from refinerl.data.terminal import safe
from refinerl.engines.launched import Launched
from refinerl.errors import UserError, report_early_interruption
from refinerl.run.interruption import Interrupted, Interruption
from refinerl.sandbox import Sandbox, cores

if TYPE_CHECKING:
    from refinerl.run.launch import Link


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 internal error, 2 bad input, 130 or 143 interrupted.

    In one of several ranks, an error ends this process and all other ranks with that code.
    """
    try:
        if Launched.read() is None:
            parse(arguments)  # before torch is imported, which takes seconds
    except UserError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return 2
    from refinerl.run.launch import EXPECTED, Link, last_words, linked

    try:
        with linked() as link:
            try:
                return _run(parse(arguments), link)
            except EXPECTED as error:
                return link.end(*last_words(error))
            except Interrupted as interrupt:
                return link.end(str(interrupt), interrupt.code)
            except KeyboardInterrupt:
                return link.end("interrupted; nothing was written", 130)
            except Exception as error:
                return link.fail(error)
    except UserError as error:  # the launcher's environment is wrong
        return Link().end(*last_words(error))


def _run(options: argparse.Namespace, link: Link) -> int:
    console = Console(quiet=link.rank > 0)
    from refinerl.engines import devices

    device = link.claim("cpu" if options.samples is not None else options.device, "--device")
    if options.dtype == "bfloat16":
        devices.require_bfloat16(device, "--dtype=bfloat16", "--dtype=float32")
    world = link.join(options.timeout, device)
    if options.tensor_parallel and world.size % options.tensor_parallel:
        raise UserError(f"--tensor-parallel {options.tensor_parallel} does not divide the {world.size} ranks")
    if options.benchmark == TASK:
        from refinerl.run.held_out import evaluate_run

        return evaluate_run(options, world, device, console)
    journal = Journal(options.output, link.rank)
    link.stand(journal.standing)
    try:
        with Interruption().listening():
            return _evaluate(options, link, world, device, journal, console)
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT
        raise Interrupted(number, journal.standing()) from None


def _evaluate(
    options: argparse.Namespace, link: Link, world: World, device: Any, journal: Journal, console: Console
) -> int:
    from refinerl.engines import devices

    started = time.perf_counter()
    suite = _suite(options, world)
    for note in suite.notes:
        console.print(safe(f"{suite.name}: {note}"), highlight=False, markup=False, soft_wrap=True)
    before = journal.settings() or {}
    model: Model | None = None
    samples: list[Sample] = []
    if options.samples is None:
        day = before.get("chat_template_date") or datetime.date.today().isoformat()
        model = describe(options, suite, datetime.date.fromisoformat(world.all_gather_object(day)[0]))
        if model.dtype == "bfloat16":
            devices.require_bfloat16(device, "the model's own type (--dtype=auto)", "--dtype=float32")
        asked = f"prompting {model.prompting.name}: ends at {list(model.prompting.stops)}; program: "
        console.print(asked + model.prompting.extraction, highlight=False, markup=False, soft_wrap=True)
        wanted = {task.id: options.n for task in suite.used}
    else:
        samples = read_samples(options.samples, suite)
        wanted = dict(counts(samples))
    output.check_ks(options.k or (), min(wanted.values()))
    settings = _settings(options, suite, model, samples)
    with _sandbox(options, world) as box:
        off = [f"{p.name} ({p.reason})" for p in box.isolation if not p.on]
        for name in off:
            console.print(f"sandbox: off: {safe(name)}", style="yellow", highlight=False, markup=False)
        scorer = Scorer(suite, box, seconds=options.seconds, memory_mb=options.memory_mb, compare=options.compare)
        world.barrier()  # all ranks have read the folder before the first one writes to it
        done, left = _left(journal, settings, suite, wanted, world, console)
        mine = _judged(options, link, world, device, scorer, model, samples, left, journal, console) if left else []
        results = gathered([*done, *mine], suite, world)
    if world.rank == 0:
        facts = {
            **settings,
            "sandbox_off": off,
            "ranks": world.size,
            "device": str(device) if model is not None else None,
            "samples_from_earlier_starts": len(done),
            "seconds": round(time.perf_counter() - started, 1),
        }
        ks = options.k or [k for k in (1, 10, 100) if k <= min(wanted.values())]
        _show(options, suite, results, output.summarize(suite, results, ks, facts), console)
        journal.finish()
    world.barrier()
    return 0


def _left(
    journal: Journal,
    settings: Mapping[str, Any],
    suite: Suite,
    wanted: Mapping[str, int],
    world: World,
    console: Console,
) -> tuple[list[Result], list[Task]]:
    """Return the results of earlier starts, on the first rank alone, and the tasks that are left to do.

    `settings` are those of this start, `wanted` has the number of samples of each task.
    """
    found = journal.begin(settings) if world.rank == 0 else []
    done = list({(result.sample.task_id, result.sample.number): result for result in found}.values())
    count = Counter(result.sample.task_id for result in done)
    ready = world.all_gather_object({name for name, number in wanted.items() if count[name] == number})[0]
    if ready:
        console.print(f"{len(ready)} of {len(wanted)} tasks were done before", highlight=False)
    done = [result for result in done if result.sample.task_id in ready]
    return done, [task for task in suite.used if task.id not in ready]


def _judged(
    options: argparse.Namespace,
    link: Link,
    world: World,
    device: Any,
    scorer: Scorer,
    model: Model | None,
    samples: Sequence[Sample],
    left: Sequence[Task],
    journal: Journal,
    console: Console,
) -> list[Result]:
    """Generate and judge this rank's share of the tasks that are left, batch by batch; return its results.

    All ranks do as many batches, because those that share an engine generate together.
    """
    mine = deal(left, world)
    largest = -(-len(left) // world.size)
    by_task: dict[str, list[Sample]] = {task.id: [] for task in mine}
    for sample in samples:
        if sample.task_id in by_task:
            by_task[sample.task_id].append(sample)
    evaluator: Evaluator | None = None
    results: list[Result] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(console, len(mine)))
        if model is not None:
            progress.add("generate", len(mine) * options.n * model.sampling.max_tokens)
            generator = make_generator(options, model, device, progress.advance("generate"), stack)
            evaluator = Evaluator(scorer, generator, model.prompting, model.sampling, options.seed, world)
        progress.add("judge", sum(map(len, by_task.values())) if model is None else len(mine) * options.n)
        size = BATCH if model is None else model.chunk
        for start in range(0, largest, size):
            tasks = mine[start : start + size]
            link.notice("generate")
            if evaluator is not None:
                batch = evaluator.generate(tasks)
            else:
                batch = [sample for task in tasks for sample in by_task[task.id]]
            link.notice("judge")
            judged = scorer.score(batch, progress.advance("judge"))
            journal.keep(judged)
            results += judged
            progress.tasks(len(tasks))
    return results


def _suite(options: argparse.Namespace, world: World) -> Suite:
    """Read the benchmark; the first rank downloads it for the others."""
    choice = Choice(
        options.benchmark,
        options.data,
        options.split,
        options.limit,
        options.difficulty,
        options.max_tests,
        options.unverified,
        options.since,
        options.until,
    )
    if world.rank:
        world.barrier()
        return load_suite(choice)
    suite = load_suite(choice)
    world.barrier()
    return suite


def _settings(
    options: argparse.Namespace, suite: Suite, model: Model | None, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Return what the results depend on, for the journal and for summary.json."""
    told: dict[str, Any] = {
        "data": options.data,
        "split": options.split,
        "limit": options.limit,
        "difficulty": options.difficulty,
        "max_tests": options.max_tests,
        "since": None if options.since is None else options.since.isoformat(),
        "until": None if options.until is None else options.until.isoformat(),
        "compare": options.compare,
        "seconds_per_test": options.seconds,
        "memory_mb": options.memory_mb,
        "packages": options.packages,
        "versions": versions(None if model is None else options.engine),
    }
    common = {"benchmark": suite.name, "tasks": len(suite.used), "files": dict(suite.files)}
    common |= {"problems_sha256": suite.digest(), **told}
    if model is not None:
        return common | model.settings
    texts = repr([(sample.task_id, sample.number, sample.program) for sample in samples])
    digest = hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()
    return common | {"samples_from": str(options.samples), "samples_sha256": digest, "prompting": None}


def _sandbox(options: argparse.Namespace, world: World) -> Sandbox:
    workers = None if world.local_size == 1 else max(1, cores() // world.local_size)
    try:
        return Sandbox(options.workers or workers, packages=options.packages)
    except ValueError as error:
        raise UserError(f"--packages: {error}") from None


def _show(
    options: argparse.Namespace, suite: Suite, results: Sequence[Result], summary: dict[str, Any], console: Console
) -> None:
    console.print(output.table(summary))
    counts = ", ".join(f"{count} {name}" for name, count in sorted(summary["outcomes"].items()))
    console.print(f"outcomes: {counts}", highlight=False, soft_wrap=True)
    if options.failures:
        failures.show(console, suite, results, options.failures)
    if options.output is not None:
        output.write(options.output, suite, results, summary)
        text = f"{options.output}: results.jsonl, summary.json, failures.html"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    report_early_interruption()
    code = main()
    from refinerl.run.launch import end_process

    end_process(code)

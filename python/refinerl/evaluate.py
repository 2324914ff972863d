"""pass@k on HumanEval(+), MBPP(+) and APPS, of a model or of existing samples.

python -m refinerl.evaluate MODEL --benchmark humaneval+ [--data DIR] [--prompting chat] [--output DIR]
python -m refinerl.evaluate --samples FILE --benchmark humaneval+ [--data DIR] [--output DIR]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refinerl import __version__
from refinerl.benchmarks import failures
from refinerl.benchmarks import results as output
from refinerl.benchmarks.evaluator import Evaluator
from refinerl.benchmarks.load import NAMES, Choice, load_suite
from refinerl.benchmarks.prompting import Name, make_prompting
from refinerl.benchmarks.samples import counts, read_samples
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import Result, Sample, Suite
from refinerl.errors import UserError
from refinerl.records import Sampling
from refinerl.sandbox import Sandbox, SandboxError

DEFAULT_TOKENS = {"humaneval": 512, "mbpp": 512, "apps": 1024}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 internal error, 2 bad input, 130 interrupted."""
    try:
        return _run(_checked(_parser().parse_args(arguments)), Console())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (SandboxError, FloatingPointError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, console: Console) -> int:
    started = time.perf_counter()
    device = None if options.samples is not None else _device(options)
    suite = load_suite(
        Choice(
            options.benchmark,
            options.data,
            options.split,
            options.limit,
            options.difficulty,
            options.max_tests,
            options.unverified,
        )
    )
    samples = None if options.samples is None else read_samples(options.samples, suite)
    counted = [options.n] if samples is None else counts(samples).values()
    output.check_ks(options.k or (), min(counted))
    ks = options.k or [k for k in (1, 10, 100) if k <= min(counted)]
    with ExitStack() as stack:
        box = stack.enter_context(_sandbox(options))
        off = [f"{p.name} ({p.reason})" for p in box.isolation if not p.on]
        for name in off:
            console.print(f"[yellow]sandbox: off: {name}[/]", highlight=False)
        for note in suite.notes:
            console.print(f"{suite.name}: {note}", highlight=False, soft_wrap=True)
        scorer = Scorer(suite, box, seconds=options.seconds, memory_mb=options.memory_mb, compare=options.compare)
        facts: dict[str, Any] = {"sandbox_off": off, "packages": options.packages, "limit": options.limit}
        bars = stack.enter_context(_bars(console))
        if samples is None:
            samples, said = _generated(options, suite, scorer, bars, console, device)
            facts |= said
        else:
            facts |= {"samples_from": str(options.samples), "prompting": None}
        bar = bars.add_task("judge", total=len(samples))
        results = scorer.score(samples, lambda done: bars.advance(bar, done))
    facts["seconds"] = round(time.perf_counter() - started, 1)
    summary = output.summarize(suite, results, ks, facts)
    _show(options, suite, results, summary, console)
    return 0


def _device(options: argparse.Namespace) -> Any:
    """Choose the model's torch device, and check that it supports the type."""
    # Imported here, as below.
    from refinerl.engines import devices

    device = devices.claim(options.device, knob="--device")
    if options.dtype == "bfloat16":
        devices.require_bfloat16(device, "--dtype=bfloat16", "--dtype=float32")
    return device


def _sandbox(options: argparse.Namespace) -> Sandbox:
    try:
        return Sandbox(options.workers, packages=options.packages)
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
        console.print(f"{options.output}: results.jsonl, summary.json, failures.html", highlight=False, soft_wrap=True)


def _generated(
    options: argparse.Namespace, suite: Suite, scorer: Scorer, bars: Progress, console: Console, device: Any
) -> tuple[list[Sample], dict[str, Any]]:
    """Generate the model's samples; return them with the settings that the summary records."""
    # Imported here, so that scoring existing samples starts without the model library.
    from refinerl.engines.models import load_model, resolve_model
    from refinerl.engines.tokenization import ChatTokenizer
    from refinerl.engines.transformers import TransformersGenerator

    name = resolve_model(options.model)
    tokenizer = ChatTokenizer.load(name, chat_template=options.chat_template)
    default: Name = "chat" if tokenizer.inner.chat_template else "completion"
    prompting = make_prompting(
        options.prompting or default, suite, tokenizer.encode, tokenizer.encode_chat, tokenizer.beginning
    )
    said = f"prompting {prompting.name}: ends at {list(prompting.stops)}; program: {prompting.extraction}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
    model = load_model(options.model, dtype=options.dtype).to(device)
    tokens = options.max_tokens or DEFAULT_TOKENS[suite.family]
    bar = bars.add_task("generate", total=len(suite.used) * options.n * tokens)
    generator = TransformersGenerator(
        model, tokenizer, max_rows=options.max_batch, progress=lambda done: bars.advance(bar, done)
    )
    sampling = Sampling(tokens, options.temperature, top_p=options.top_p, n=options.n, stop=prompting.stops)
    samples = Evaluator(scorer, generator, prompting, sampling, options.seed).generate()
    return samples, {
        "model": options.model,
        "dtype": options.dtype,
        "prompting": {
            "name": prompting.name,
            "stops": list(prompting.stops),
            "extraction": prompting.extraction,
        },
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": tokens,
        "seed": options.seed,
    }


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Check the options against each other; return them.

    Raises:
        UserError: two of them contradict each other.
    """
    named = [name for name in (options.model, options.model_option) if name is not None]
    if len(named) + (options.samples is not None) != 1:
        raise UserError("give either one model (a hub id, a folder, a run's final/) or --samples FILE")
    options.model = named[0] if named else None
    for name in ("n", "limit", "workers", "max_tokens", "max_batch", "memory_mb", "max_tests"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.temperature < 0 or not 0 < options.top_p <= 1:
        raise UserError("--temperature must be at least 0, and --top-p above 0 and at most 1")
    if options.seconds is not None and not 0 < options.seconds <= 3600:
        raise UserError(f"--seconds must be above 0 and at most 3600, got {options.seconds}")
    if options.samples is None and options.n > 1 and options.temperature == 0:
        raise UserError(f"--n {options.n} needs a --temperature above 0: greedy samples are all the same")
    if options.samples is not None and not options.samples.exists():
        raise UserError(f"there is no file or folder {options.samples}")
    if options.output is not None:
        nearest = next(path for path in (options.output, *options.output.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise UserError(f"cannot write to {options.output}: {nearest} is not a folder that can be written to")
    return options


def _ks(text: str) -> list[int]:
    ks = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(ks) < 1:
        raise argparse.ArgumentTypeError(f"k must be numbers of at least 1, got {text!r}")
    return sorted(set(ks))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.evaluate",
        description="pass@k on HumanEval(+), MBPP(+) and APPS, of a model or of existing samples.",
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a hub id, a folder such as a run's final/, or a bundled model")
    add("--model", dest="model_option", metavar="MODEL", help="the same")
    add("--samples", type=Path, metavar="FILE", help="score these instead: JSON lines of task_id and solution or "
        "completion, or evalplus's folder")  # fmt: skip
    add("--benchmark", choices=NAMES, required=True)
    add("--data", metavar="DIR", help="folder with the benchmark's files; for apps also a file or hub:OWNER/NAME/FILE "
        "(default: where they are published)")  # fmt: skip
    add("--split", help="mbpp: test, all, sanitized; apps: test, train (default: test)")
    add("--output", type=Path, metavar="DIR", help="folder for results.jsonl, summary.json and "
        "failures.html, a page of the samples that fail")  # fmt: skip
    add("--failures", type=int, default=0, metavar="N", help="print the first N failing samples")
    add("--limit", type=int, metavar="N", help="the first N tasks only")
    add("--k", type=_ks, metavar="K,…", help="default: those of 1, 10, 100 that the samples allow")
    add("--unverified", action="store_true", help="take benchmark files of other versions than the known ones")
    asking = parser.add_argument_group("how the model is asked")
    add = asking.add_argument
    add("--prompting", choices=("completion", "chat"), help="default: chat where the tokenizer has a template")
    add("--n", type=int, default=1, help="samples of each task (default: 1)")
    add("--temperature", type=float, default=0.0, help="default: 0, greedy")
    add("--top-p", type=float, default=1.0)
    add("--max-tokens", type=int, metavar="N", help="of an answer (default: 512, for apps 1024)")
    add("--seed", type=int, default=0)
    add("--chat-template", metavar="FILE", help="Jinja text or a file, for tokenizers that bring none")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--device", default="auto", help="cpu, cuda, cuda:N … (default: auto, the GPU if there is one, else the CPU)")
    add("--max-batch", type=int, default=32, metavar="N", help="samples generated at once (default: 32)")
    judging = parser.add_argument_group("how programs are judged")
    add = judging.add_argument
    add("--workers", type=int, metavar="N", help="default: the cores")
    add("--seconds", type=float, help="processor time of each test (default: 4 × the reference's slowest, at least 1; "
        "apps: 4)")  # fmt: skip
    add("--memory-mb", type=int, default=4096)
    add("--packages", nargs="+", default=[], metavar="NAME", help="installed packages that programs may import, "
        "such as numpy (default: none)")  # fmt: skip
    add("--compare", choices=("strict", "apps"), default="strict", help="apps: the comparison (default: strict)")
    add("--difficulty", help="apps: only problems of this difficulty")
    add("--version", action="version", version=f"refinerl {__version__}")
    add("--max-tests", type=int, metavar="N", help="apps: tests of each problem at most, a deterministic choice")
    return parser


if __name__ == "__main__":
    sys.exit(main())

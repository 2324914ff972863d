"""The command line of `refinerl.evaluate`."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Sequence
from pathlib import Path

from refinerl import __version__
from refinerl.benchmarks.load import NAMES, OF_PROBLEMS
from refinerl.errors import UserError
from refinerl.report.model import find_model, is_run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, and check the options against each other.

    Raises:
        UserError: two of them contradict each other, or a value is out of range.
    """
    options = _parser().parse_args(arguments)
    named = [name for name in (options.model, options.model_option) if name is not None]
    if len(named) + (options.samples is not None) != 1:
        raise UserError("give either one model (a hub id, a folder, a run) or --samples FILE")
    options.model = named[0] if named else None
    if options.samples is not None and options.benchmark != TASK:
        for name, default in OF_A_MODEL.items():
            if getattr(options, name) != default:
                raise UserError(
                    f"--{name.replace('_', '-')} is for a model, and --samples are only judged: leave it out"
                )
    if options.compare is not None and options.benchmark not in (*OF_PROBLEMS, TASK):
        raise UserError(f"--compare is for {' and '.join(OF_PROBLEMS)}, not for {options.benchmark}")
    if options.benchmark == TASK:
        _check_task(options)
    else:
        check_top_p(options.top_p, options.temperature or 0.0)
        options.n = 1 if options.n is None else options.n
        options.temperature = options.temperature or 0.0
        options.seed = options.seed or 0
        options.compare = options.compare or "strict"
        options.memory_mb = 4096 if options.memory_mb is None else options.memory_mb
        if options.subset is not None:
            raise UserError("--subset is for --benchmark task, where --data may be a data set with subsets")
        if options.model is not None and is_run(options.model):
            options.model = str(find_model(Path(options.model))[0])
    counts = ("n", "limit", "workers", "max_tokens", "max_batch", "memory_mb", "max_tests", "tensor_parallel")
    for name in (*counts, "max_model_len"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if (options.temperature or 0.0) < 0 or not 0 < options.top_p <= 1:
        raise UserError("--temperature must be at least 0, and --top-p above 0 and at most 1")
    if options.timeout <= 0:
        raise UserError(f"--timeout must be above 0, got {options.timeout}")
    if options.seconds is not None and not 0 < options.seconds <= 3600:
        raise UserError(f"--seconds must be above 0 and at most 3600, got {options.seconds}")
    if options.samples is None and (options.n or 1) > 1 and options.temperature == 0:
        raise UserError(f"--n {options.n} needs a --temperature above 0: greedy samples are all the same")
    if options.samples is not None and not options.samples.exists():
        raise UserError(f"there is no file or folder {options.samples}")
    _check_engine(options)
    if options.output is not None:
        nearest = next(path for path in (options.output, *options.output.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise UserError(f"cannot write to {options.output}: {nearest} is not a folder that can be written to")
    return options


def _check_task(options: argparse.Namespace) -> None:
    """Refuse options that an evaluation of a run's own rows does not read."""
    if options.model is None:
        raise UserError(
            "--benchmark task needs a run, whose prompts and reward it uses: give its folder, not --samples"
        )
    for name in IGNORED_BY_TASK:
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is for benchmarks; --benchmark task is judged as in the run")


def check_top_p(top_p: float, temperature: float) -> None:
    """Refuse a choice of tokens that greedy decoding does not make.

    Raises:
        UserError: the temperature is 0.
    """
    if 0 < top_p < 1 and temperature == 0:
        raise UserError(f"--top-p {top_p:g} needs a --temperature above 0: greedy decoding takes the likeliest token")


OF_A_MODEL = {
    **dict.fromkeys(("prompting", "n", "temperature", "max_tokens", "seed", "chat_template", "max_batch")),
    "top_p": 1.0,
    "dtype": "auto",
    "device": "auto",
    "engine": "transformers",
}
"""Options that only the evaluation of a model reads, with their defaults."""
TASK = "task"
"""The held-out rows of a run, in place of a benchmark."""
IGNORED_BY_TASK = (
    "failures", "k", "unverified", "prompting", "workers", "seconds", "memory_mb", "packages", "compare", "difficulty",
    "max_tests", "since", "until", "chat_template",
)  # fmt: skip
"""Options of benchmarks alone."""


def _check_engine(options: argparse.Namespace) -> None:
    if options.engine != "vllm":
        for name in ("tensor_parallel", "max_model_len", "memory"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} is for --engine vllm")
    if options.memory is not None and not 0 < options.memory <= 1:
        raise UserError(f"--memory must be above 0 and at most 1, got {options.memory}")


def _ks(text: str) -> list[int]:
    ks = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(ks) < 1:
        raise argparse.ArgumentTypeError(f"k must be numbers of at least 1, got {text!r}")
    return sorted(set(ks))


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a date must be written as 2024-08-01, got {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.evaluate",
        usage="%(prog)s MODEL --benchmark NAME [--data DIR] [--output DIR] [options, which --help explains]",
        description="pass@k on HumanEval(+), MBPP(+), APPS and LiveCodeBench, of a model or of existing samples. "
        "Called again with the same --output, an interrupted evaluation goes on. torchrun starts it on several ranks.",
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a hub id, a folder (a model's, a run's, a checkpoint's), or a "
        "bundled model; of a run final/ is taken, or its last checkpoint")  # fmt: skip
    add("--model", dest="model_option", metavar="MODEL", help="the same")
    add("--samples", type=Path, metavar="FILE", help="score these instead: JSON lines of task_id and solution or "
        "completion, or evalplus's folder")  # fmt: skip
    add("--benchmark", choices=(*NAMES, TASK), required=True, help="task: held-out rows of a run, asked and judged as "
        "in its training")  # fmt: skip
    add("--data", metavar="DIR", help="folder with the benchmark's files; for apps and livecodebench also a file or "
        "hub:OWNER/NAME/FILE (default: where they are published); for task a file of rows (default: the run's "
        "evaluate.path)")  # fmt: skip
    add("--split", help="mbpp: test, all, sanitized; apps: test, train (default: test); livecodebench: release_v1 to "
        "release_v6 (default: release_v6); task: of --data, if it is a data set (default: as in the run)")  # fmt: skip
    add("--subset", help="task: the subset of --data, if it is a data set that has several (default: as in the run)")
    add("--output", type=Path, metavar="DIR", help="folder for results.jsonl, summary.json and failures.html, a page "
        "of the samples that fail; the same command goes on after an interruption")  # fmt: skip
    add("--failures", type=int, default=0, metavar="N", help="print the first N failing samples")
    add("--limit", type=int, metavar="N", help="the first N tasks only")
    add("--k", type=_ks, metavar="K,…", help="default: those of 1, 10, 100 that the samples allow")
    add("--unverified", action="store_true", help="take benchmark files of other versions than the known ones")
    add("--timeout", type=float, default=86400.0, metavar="SECONDS", help="time that ranks wait for each other at the "
        "end (default: 86400)")  # fmt: skip
    add("--local_rank", help=argparse.SUPPRESS)  # added by DeepSpeed's launcher
    add("--version", action="version", version=f"refinerl {__version__}")
    _add_asking(parser)
    judging = parser.add_argument_group("how programs are judged")
    add = judging.add_argument
    add("--workers", type=int, metavar="N", help="default: the cores, shared by the ranks of a machine")
    add("--seconds", type=float, help="processor time of each test (default: 4 × the reference's slowest, at least 1; "
        "apps 4; livecodebench 6)")  # fmt: skip
    add("--memory-mb", type=int, metavar="MIB", help="memory of each test (default: 4096)")
    add("--packages", nargs="+", default=[], metavar="NAME", help="installed packages that programs may import, "
        "such as numpy (default: none)")  # fmt: skip
    add("--compare", choices=("strict", "apps"), help="apps: the comparison (default: strict)")
    add("--difficulty", help="apps, livecodebench: only problems of this difficulty")
    add("--max-tests", type=int, metavar="N", help="apps, livecodebench: tests of each problem at most, a "
        "deterministic choice")  # fmt: skip
    add("--since", type=_date, metavar="DATE", help="livecodebench: only problems of contests on or after this day")
    add("--until", type=_date, metavar="DATE", help="livecodebench: only problems of contests before this day")
    return parser


def _add_asking(parser: argparse.ArgumentParser) -> None:
    asking = parser.add_argument_group("how the model is asked")
    add = asking.add_argument
    add("--prompting", choices=("completion", "chat"), help="default: chat where the tokenizer has a template")
    add("--n", "--samples-per-task", type=int, help="samples of each task (default: 1; task: as in the run); the "
        "longer name is for torchrun, which takes --n for one of its own options")  # fmt: skip
    add("--temperature", type=float, help="default: 0, greedy; task: as in the run")
    add("--top-p", type=float, default=1.0)
    add("--max-tokens", type=int, metavar="N", help="of an answer (default: 512; apps 1024; livecodebench 2000)")
    add("--seed", type=int, help="of the samples (default: 0; task: the run's)")
    add("--chat-template", metavar="FILE", help="Jinja text or a file, for tokenizers that bring none")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: auto, the type "
        "that the model was saved in")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, cuda:N … (default: auto, the GPU if there is one, else the CPU)")
    add("--engine", choices=("transformers", "vllm"), default="transformers")
    add("--max-batch", type=int, metavar="N", help="samples generated at once (default: 32; vllm 256)")
    add("--tensor-parallel", type=int, metavar="N", help="vllm: ranks that share an engine (default: 1)")
    add("--memory", type=float, metavar="SHARE", help="vllm: share of the GPU's memory (default: 0.85)")
    add("--max-model-len", type=int, metavar="N", help="vllm: tokens of prompt and answer that fit (default: the "
        "model's)")  # fmt: skip

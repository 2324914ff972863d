"""The model of an evaluation: how it is asked, its type, and the engine that generates its answers."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refinerl import __version__
from refinerl.benchmarks.prompting import Name, Prompting, make_prompting
from refinerl.benchmarks.suite import Suite
from refinerl.contracts import Generator
from refinerl.errors import UserError
from refinerl.records import Sampling

if TYPE_CHECKING:  # scoring existing samples starts without the model library
    import torch

    from refinerl.engines.models import DType
    from refinerl.engines.tokenization import ChatTokenizer

TOKENS = {"humaneval": 512, "mbpp": 512, "apps": 1024, "livecodebench": 2000}
"""Maximum tokens of an answer, by the benchmark's family."""
ROWS = {"transformers": 32, "vllm": 256}
"""Samples that are generated at once, by the engine."""
CHUNK = 4
"""Samples between two entries of the journal, over those that are generated at once."""

_OPTIONS = {
    "engines.generator=": "--engine ",
    "vllm.memory_policy or vllm.memory_refiner": "--memory",
    "vllm.max_model_len": "--max-model-len",
}
"""Knobs of a run in the messages of the engines, and the options of this command."""


@dataclass(frozen=True)
class Weights:
    """A model, before its weights are loaded."""

    name: str
    """For `from_pretrained`."""
    tokenizer: ChatTokenizer
    dtype: DType
    rows: int
    """Samples that are generated at once."""


@dataclass(frozen=True)
class Model(Weights):
    """A model that is evaluated on a benchmark, and how it is asked."""

    prompting: Prompting
    sampling: Sampling
    """Without seeds."""
    settings: dict[str, Any]
    """The settings that the samples depend on, for summary.json."""

    @property
    def chunk(self) -> int:
        """Number of tasks between two entries of the journal."""
        return max(1, CHUNK * self.rows // self.sampling.n)


def describe(options: argparse.Namespace, suite: Suite, date: datetime.date) -> Model:
    """Read the model's tokenizer and configuration, and choose how it is asked.

    `date` is the day that chat templates print.

    Raises:
        UserError: the tokenizer or the configuration cannot be read.
    """
    from refinerl.engines.models import resolve_model
    from refinerl.engines.tokenization import ChatTokenizer

    name = resolve_model(options.model)
    tokenizer = ChatTokenizer.load(name, chat_template=options.chat_template, date=date)
    default: Name = "chat" if tokenizer.inner.chat_template else "completion"
    prompting = make_prompting(
        options.prompting or default, suite, tokenizer.encode, tokenizer.encode_chat, tokenizer.beginning
    )
    tokens = options.max_tokens or TOKENS[suite.family]
    sampling = Sampling(tokens, options.temperature, top_p=options.top_p, n=options.n, stop=prompting.stops)
    dtype = own_type(name) if options.dtype == "auto" else options.dtype
    settings = {
        "model": options.model,
        "weights": fingerprint(Path(name)),
        "engine": options.engine,
        "dtype": dtype,
        "prompting": {
            "name": prompting.name,
            "stops": list(prompting.stops),
            "extraction": prompting.extraction,
        },
        "chat_template": options.chat_template,
        "chat_template_date": date.isoformat(),
        "n": options.n,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": tokens,
        "max_model_len": options.max_model_len,
        "seed": options.seed,
    }
    rows = options.max_batch or ROWS[options.engine]
    return Model(name, tokenizer, dtype, rows, prompting, sampling, settings)


def own_type(name: str) -> DType:
    """Return the type that a model was saved in; float32 if its configuration names none.

    Raises:
        UserError: there is no such model, or it has a type in which nothing is computed.
    """
    from transformers import AutoConfig

    from refinerl.engines.models import base_of, loading

    with loading(name):
        config = AutoConfig.from_pretrained(base_of(name))
    found = str(getattr(config.get_text_config(), "dtype", None) or config.dtype or "float32").removeprefix("torch.")
    match found:
        case "float32" | "bfloat16" | "float16" | "float64":
            return found
    raise UserError(f"the model {name} was saved in {found}: choose --dtype bfloat16 or --dtype float32")


def fingerprint(folder: Path) -> str | None:
    """Return a hash of the names, sizes and times of a folder's weights; None for the name of a model on the hub.

    It changes when the folder is written anew, as `final/` is by a run that goes on.
    """
    files = sorted(file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind)) if folder.is_dir() else []
    if not files:
        return None
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def versions(engine: str | None) -> dict[str, str]:
    """Return the versions of what results depend on; `engine` is that of the model, None for existing samples."""
    names = {None: (), "transformers": ("torch", "transformers"), "vllm": ("torch", "transformers", "vllm")}[engine]
    found = {"refinerl": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def make_generator(
    options: argparse.Namespace,
    model: Weights,
    device: torch.device,
    progress: Callable[[int], None],
    closing: ExitStack,
) -> Generator:
    """Load the model into an engine.

    Raises:
        UserError: it cannot be loaded, or the engine is not installed or cannot serve it.
    """
    if options.engine == "vllm":
        return _vllm(options, model, device, progress, closing)
    from refinerl.engines.models import load_model
    from refinerl.engines.transformers import TransformersGenerator

    weights = load_model(options.model, dtype=model.dtype).to(device)
    return TransformersGenerator(weights, model.tokenizer, max_rows=model.rows, progress=progress)


def _vllm(
    options: argparse.Namespace,
    model: Weights,
    device: torch.device,
    progress: Callable[[int], None],
    closing: ExitStack,
) -> Generator:
    from refinerl.engines.models import base_of
    from refinerl.engines.vllm import VllmGenerator

    if base_of(model.name) != model.name:
        raise UserError(
            f"{model.name} holds an adapter, which --engine vllm does not read: choose --engine transformers, or write "
            "the merged model with `python -m refinerl.report export RUN --format model --merge`"
        )
    memory = None if device.type == "cpu" else options.memory or 0.85
    try:
        made = VllmGenerator(
            model.name,
            model.tokenizer,
            dtype=model.dtype,
            context_length=options.max_model_len,
            max_rows=model.rows,
            memory=memory,
            tensor_parallel=options.tensor_parallel or 1,
            sleeps=False,
            frozen=True,
            progress=progress,
        )
    except UserError as error:
        message = str(error)
        for knob, option in _OPTIONS.items():
            message = message.replace(knob, option)
        raise UserError(message) from error
    closing.callback(made.close)
    return made

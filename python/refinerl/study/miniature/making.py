"""The files of the miniature: problems, base model, and the base's card with its measured rates."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from refinerl import __version__
from refinerl.data.apps import load_problems
from refinerl.data.files import write
from refinerl.engines.models import quiet
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.study.miniature import problems, training
from refinerl.study.miniature.gates import SAMPLES, Gates, measure
from refinerl.study.miniature.vocabulary import save_tokenizer


def make(
    folder: Path,
    settings: training.Training,
    say: Callable[[str], None] = print,
    *,
    train: int = 1500,
    held_out: int = 200,
) -> Gates:
    """Make `train.jsonl`, `held_out.jsonl` and `base/` in a folder; return the rates of the base.

    The problems depend on `settings.shape` alone. `base/` appears when it is complete.

    Args:
        settings: of the base's training.
        say: prints a line of progress.
        train: number of training problems.
        held_out: number of held-out problems, on which the base is measured.

    Raises:
        UserError: the folder has a base already, or cannot be written.
    """
    place = folder / "base"
    if place.exists():
        raise UserError(f"{place} exists already: choose another folder for --make, such as {folder}-2")
    partial = folder / f".base.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        learnt, held = problems.training_and_held_out(train, held_out, settings.shape)
        _write_rows(folder / "train.jsonl", learnt)
        _write_rows(folder / "held_out.jsonl", held)
        say(f"{len(learnt)} training problems, {len(held)} held out")
        with quiet():
            save_tokenizer(partial)
            model = training.train(ChatTokenizer.load(partial), settings, say)
            training.save(model, partial)
        size = sum(weight.numel() for weight in model.parameters())
        held_out_problems = load_problems(folder / "held_out.jsonl").problems
        gates = measure(partial, held_out_problems, temperature=_temperature(settings))
        write(partial / "README.md", _card(settings, gates, size, len(held)))
        partial.rename(place)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write the miniature to {folder}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return gates


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write(path, (json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def _temperature(settings: training.Training) -> float:
    """Return the temperature of the corrections: greedy ones would hide a skill between 0 and 1."""
    return 0.0 if settings.skill == 1 else 1.0


_FAR = """
Its corpus is made for a question: what happens if sampling does not find what the refiner knows? The errors of the
corpus at hard operations share little with the right lines (`--shape far`), so that the model practically never samples
a right line there, and it never saw one when it learnt to write. The corrections that it learnt have them.
"""


def _card(settings: training.Training, gates: Gates, size: int, held_out: int) -> str:
    command = f"python -m refinerl.study.miniature --make FOLDER --seed {settings.seed} --steps {settings.steps}"
    if settings.shape != "near":
        command += f" --shape {settings.shape}"
    if settings.skill != 1:
        command += f" --skill {settings.skill:g}"
    if settings.start is not None:
        command += f" --from {settings.start}"
    versions = {
        "refinerl": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
    }
    corrections = "sampled corrections" if _temperature(settings) else "greedy corrections"
    shape = "" if settings.shape == "near" else _FAR
    rates = "\n".join(f"| {words} | {rate} |" for words, rate in gates.lines().items())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The base model of refinerl's miniature

A Llama of {size:,} parameters, trained from scratch on texts that refinerl generates: small programs about lists, with
the errors of a corpus, and corrections of such programs. It knows nothing else. Correcting is easier for it than
writing because it was trained that way, so its rates say nothing about the refiners of other models.
{shape}
Made by `{command}`
with {", ".join(f"{name} {version}" for name, version in versions.items())}.
License: Apache-2.0, like the rest of refinerl.

Rates on the {held_out} held-out problems, with {SAMPLES} sampled answers to each, {corrections}:

| | |
|---|---|
{rates}
"""

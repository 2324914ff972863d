"""Generation with the miniature on one thread, as our rule for small models has it, and on all of them, in turns.

    python benches/bench_cores.py

The machine must be idle: a thread that waits for another stalls where both share a core.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time

import torch

from refinerl.engines import transformers
from refinerl.engines.cores import few_threads
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.records import Sampling

PROMPTS, SAMPLES, TOKENS, ROWS, ROUNDS = 8, 8, 64, 32, 9


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    model, tokenizer = load_model("miniature"), ChatTokenizer.load(resolve_model("miniature"))
    prompts = [tokenizer.encode(f"take last {i}; sort") for i in range(PROMPTS)]
    seeds = [[SAMPLES * i + j for j in range(SAMPLES)] for i in range(PROMPTS)]
    sampling = Sampling(TOKENS, n=SAMPLES, seeds=seeds)
    seconds: dict[str, list[float]] = {"one thread": [], f"{torch.get_num_threads()} threads": []}
    for _ in range(ROUNDS + 1):
        for name, rule in zip(seconds, (few_threads, lambda *_: contextlib.nullcontext()), strict=True):
            transformers.few_threads = rule
            generator = transformers.TransformersGenerator(model, tokenizer, max_rows=ROWS)
            begin = time.perf_counter()
            generator.generate(prompts, sampling)
            seconds[name].append(time.perf_counter() - begin)
    for name, found in seconds.items():
        print(f"{name}: {statistics.median(found[1:]):.3f} s, at best {min(found[1:]):.3f}")


if __name__ == "__main__":
    main()

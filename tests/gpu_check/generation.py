"""Tokens per second of the generator in this process, against the time to read the weights once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from gpu_check.shapes import random_qwen
from gpu_check.site import Fact, Site
from gpu_check.timing import copy_bytes_per_second
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Sampling
from tiny import write_tiny


def run(site: Site) -> Iterator[Fact]:
    model = random_qwen(site, torch.bfloat16)
    tokenizer = ChatTokenizer.load(str(write_tiny(site.folder / "tiny")), chat_template=None)
    weights = sum(p.nbytes for p in model.parameters())
    # A copy reads and writes: the same bandwidth takes the weights in half of a copy's time.
    floor = weights / copy_bytes_per_second(site.device)
    yield {"shape": "Qwen2.5-1.5B's, random", "dtype": "bfloat16", "floor_ms_of_a_step": round(1e3 * floor, 3)}
    tokens = 8 if site.rehearsing else 64
    for rows in (2, 4) if site.rehearsing else (32, 128):
        generator = TransformersGenerator(model, tokenizer, max_rows=rows)
        sampling = Sampling(tokens, 1.0, n=rows, seeds=[list(range(rows))])
        took = 0.0
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            written = generator.generate([[*range(5, 69)]], sampling)
            took = time.perf_counter() - began
        count = sum(len(completion.token_ids) for completion in written[0])
        yield {"rows": rows, "tokens_per_s": round(count / took), "ms_of_a_step": round(1e3 * took / tokens, 2)}

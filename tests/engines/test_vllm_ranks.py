"""vLLM under a launcher: two processes share each engine, and the group that they were joined in survives it."""

from __future__ import annotations

import importlib.util
import re

import pytest

from launching import launch
from tiny import write_tiny

RANK = """
import datetime, sys
import torch
import torch.distributed as dist
from refinerl.engines.models import load_model
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.records import Sampling
from refinerl.tokenization import ChatTokenizer
from tiny import tiny_model

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=120))
folder, rank = sys.argv[1], dist.get_rank()
tokenizer = ChatTokenizer.load(folder)
texts = [("a", "What is 1 + 1?"), ("def f(x):", "hello " * 9, "zz")][rank]  # not as many on each rank
prompts = [tokenizer.encode(text) for text in texts]
greedy = Sampling(max_tokens=12, temperature=0)
policy, refiner = (VllmGenerator(folder, tokenizer, tensor_parallel=2) for _ in range(2))
other = tiny_model(seed=1, hidden=128, scale=0.1)
policy.load((name, p.detach()) for name, p in other.named_parameters())
for engine, model in ((policy, other), (refiner, load_model(folder))):
    expected = TransformersGenerator(model, tokenizer).generate(prompts, greedy)
    found = engine.generate(prompts, greedy)
    assert [g[0].token_ids for g in found] == [g[0].token_ids for g in expected]
policy.close()
seeds = [[10 * rank + i, 100 + i] for i in range(len(prompts))]
assert [len(g) for g in refiner.generate(prompts, Sampling(max_tokens=4, n=2, seeds=seeds))] == [2] * len(prompts)
refiner.close()
total = torch.ones(1)
dist.all_reduce(total)
assert total.item() == 2
dist.destroy_process_group()
print(f"rank {rank} is done")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (make setup says why)")
def test_two_ranks_share_an_engine_and_each_gets_its_own_completions(tmp_path):
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1)
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    done = launch("torchrun", str(folder), script=script, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    # Both write to one pipe at once, so that their lines may run into each other.
    assert sorted(re.findall(r"rank \d is done", done.stdout)) == ["rank 0 is done", "rank 1 is done"]

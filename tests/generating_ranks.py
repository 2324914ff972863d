"""Two ranks generate with vLLM what weights write that ZeRO-3 has spread over them.

python generating_ranks.py MODEL OUT RANKS_OF_AN_ENGINE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.models import load_model
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.engines.world import Launched, Ranks, dist, leave
from refinerl.records import Sampling
from refinerl.run.launch import end_process
from tiny import make_rows

ZERO_3 = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
GREEDY = Sampling(max_tokens=12, temperature=0)
TEXTS = [("a", "What is 1 + 1?"), ("def f(x):", "hello " * 9, "zz")]  # not as many on each rank
ROWS = make_rows([(5, 6, 7), (8, 9)], [(10, 11, 12), (13, 14)])


def main(folder: str, out: Path, tensor_parallel: int) -> None:
    launched = Launched.read()
    assert launched is not None
    store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
    world = Ranks(launched, store, 120)
    tokenizer = ChatTokenizer.load(folder)
    prompts = [tokenizer.encode(text) for text in TEXTS[world.rank]]

    def writes(model: str) -> list[tuple[int, ...]]:
        written = TransformersGenerator(load_model(model), tokenizer).generate(prompts, GREEDY)
        return [group[0].token_ids for group in written]

    def same(engine: VllmGenerator, expected: list[tuple[int, ...]]) -> None:
        """With drafts, which only an engine that guesses uses: those of all ranks that share it."""
        found = engine.generate(prompts, GREEDY, drafts=expected)
        assert [group[0].token_ids for group in found] == expected

    policy = DeepSpeedTrainer(PolicyNetwork(load_model(folder)), Optimization(2e-2), world, ZERO_3)
    assert all(p.numel() == 0 for p in policy.network.parameters())  # in pieces
    engine, refiner = (
        VllmGenerator(folder, tokenizer, tensor_parallel=tensor_parallel, guesses=guesses) for guesses in (0, 8)
    )
    before = writes(folder)
    for step in (1, 2):
        for _ in range(3):
            policy.backward(-policy.forward(ROWS).logprobs.sum())
            policy.step()
        policy.export(out / str(step))
        world.barrier()
        trained = writes(str(out / str(step)))
        assert trained != before
        engine.load(policy.weights())
        same(engine, trained)
        same(refiner, before)
    engine.close()
    seeds = [[10 * world.rank + i, 100 + i] for i in range(len(prompts))]
    sampled = refiner.generate(prompts, Sampling(max_tokens=4, n=2, seeds=seeds))
    assert [len(group) for group in sampled] == [2] * len(prompts)
    refiner.close()
    assert world.all_reduce(torch.ones(1)).item() == 2  # the ranks' own group outlives the engines
    leave()
    print(f"rank {world.rank} is done")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    end_process(0)

"""Engines are made and closed; says what they leave of the process: python engines_that_close.py MODEL."""

from __future__ import annotations

import sys

import torch

from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.vllm import VllmGenerator
from refinerl.engines.world import join_alone, leave
from refinerl.records import Sampling


def group() -> str:
    return "a group" if torch.distributed.is_initialized() else "no group"


def main(folder: str) -> None:
    tokenizer = ChatTokenizer.load(folder)

    def make() -> VllmGenerator:
        return VllmGenerator(folder, tokenizer)

    def tokens(engine: VllmGenerator) -> tuple[int, ...]:
        return engine.generate([(5, 6, 7)], Sampling(max_tokens=8, temperature=0))[0][0].token_ids

    count = torch.get_num_threads()
    torch.set_float32_matmul_precision("high")
    engines = [make(), make()]
    threads = "threads as before" if torch.get_num_threads() == count else f"{torch.get_num_threads()} threads"
    print(f"two made: {threads}, precision {torch.get_float32_matmul_precision()}, {group()}")
    before = tokens(engines[0])
    engines.pop().close()
    print(f"one closed: {group()}")
    engines.pop().close()
    print(f"both closed: {group()}")
    engine = make()
    same = "the same tokens" if tokens(engine) == before else "other tokens"
    print(f"made anew: {group()}, {same}")
    engine.close()
    print(f"closed: {group()}")
    join_alone()
    make().close()
    print(f"made in a group of ours and closed: {group()}")
    leave()


if __name__ == "__main__":
    main(sys.argv[1])

"""The work of a phase and the bytes that ZeRO moves, measured on ranks, to compare with the counts in docs/scaling.md.

torchrun --nproc-per-node 2 benches/bench_ranks.py       one thread for each rank; rank 0 prints

The model is a Llama of 5 M weights in float32. Work is the processor time of one rank, the least of four, in units of a
forward pass without gradient (2·P FLOP per token), so that other work on the machine matters little. Bytes are what the
rank gives to DeepSpeed's collectives by DeepSpeed's own log, in units of the size of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.world import Launched, Ranks, dist, leave
from refinerl.records import Rows

ROWS, PROMPT, TOKENS = 4, 64, 128
SPREAD = {"stage3_param_persistence_threshold": 0}
CASES = {
    "ZeRO 0": ({}, False),
    "ZeRO 2": ({"stage": 2}, False),
    "ZeRO 3": ({"stage": 3, **SPREAD}, False),
    "ZeRO 2, recomputed": ({"stage": 2}, True),
}


def network() -> PolicyNetwork:
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return PolicyNetwork(LlamaForCausalLM(config))


def batch() -> Rows:
    """Make rows without padding; tensors that the network does not read are empty."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    ids = torch.randint(2048, (ROWS, PROMPT + TOKENS), generator=generator)
    fields: dict[str, Any] = dict.fromkeys(Rows.__dataclass_fields__, torch.zeros(ROWS))
    fields |= {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids, dtype=torch.bool),
        "prompt_lengths": torch.full((ROWS,), PROMPT),
        "targets": ids[:, PROMPT:],
        "mask": torch.ones(ROWS, TOKENS, dtype=torch.bool),
        "is_constraint": torch.zeros(ROWS, dtype=torch.bool),
    }
    return Rows(**fields)


def least(work: Callable[[], object]) -> float:
    """Return the processor seconds of the cheapest of four calls, after one to warm up."""
    seconds = []
    for _ in range(5):
        dist.barrier()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def moved(work: Callable[[], object]) -> dict[str, int]:
    """Return the bytes that this rank has given to each of DeepSpeed's collectives, by DeepSpeed's own log."""
    from deepspeed import comm

    log: Any = comm.comm.comms_logger
    log.comms_dict.clear()
    work()
    return {name: sum(size * calls[0] for size, calls in sizes.items()) for name, sizes in log.comms_dict.items()}


def measured(zero: dict[str, Any], recomputed: bool, world: Ranks, rows: Rows) -> dict[str, tuple[float, str]]:
    """Measure each part of a step: its seconds, and the bytes moved."""
    native = {
        "zero_optimization": zero,
        "comms_logger": {"enabled": True, "verbose": False, "prof_all": True, "debug": False},
    }
    policy = DeepSpeedTrainer(network(), Optimization(1e-6), world, native, gradient_checkpointing=recomputed)
    weights = 4 * sum(getattr(p, "ds_numel", p.numel()) for p in policy.network.parameters())

    def forward() -> None:
        with torch.no_grad():
            policy.forward(rows)

    def learn() -> None:
        policy.backward(policy.forward(rows).logprobs.sum() / 1e3)

    def learn_and_step() -> None:
        learn()
        policy.step()

    def sync() -> None:
        for _, whole in policy.weights():
            whole.sum()

    found = {}
    for name, work in (("forward", forward), ("and backward", learn), ("and step", learn_and_step), ("sync", sync)):
        seconds = least(work)
        told = ", ".join(f"{op} {size / weights:.2f}" for op, size in moved(work).items() if size > weights / 100)
        found[name] = (seconds, told)
    return found


def main() -> None:
    torch.set_num_threads(1)
    launched = Launched.read()
    assert launched is not None, "start it with torchrun"
    store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
    world = Ranks(launched, store, 300)
    rows = batch()
    lines = {name: measured(zero, recomputed, world, rows) for name, (zero, recomputed) in CASES.items()}
    if world.rank == 0:
        unit = lines["ZeRO 0"]["forward"][0]
        print(f"{world.size} ranks; the unit is {unit:.3f} s, for {ROWS * (PROMPT + TOKENS)} tokens on each")
        for name, line in lines.items():
            print(f"| {name} |" + "".join(f" {seconds / unit:.2f} ({told}) |" for seconds, told in line.values()))
    leave()


if __name__ == "__main__":
    main()

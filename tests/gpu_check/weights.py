"""Whether a policy's weights move at a real learning rate, and what it holds against the memory model."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from gpu_check.shapes import random_qwen
from gpu_check.site import Fact, Site
from refinerl.contracts import ALONE, Trainer
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.torch import TorchTrainer
from refinerl.records import Rows
from refinerl.run import memory, recipe
from refinerl.run.memory import Shape, Training
from refinerl.run.trainers import make_network, make_policy
from tiny import make_rows

_ZERO = ("engines.trainer=deepspeed", "deepspeed.zero_optimization.stage=")
CASES = {
    "torch float32": (),
    "torch bfloat16": ("dtype=bfloat16",),
    "torch bfloat16, recomputed": ("dtype=bfloat16", "trainer.gradient_checkpointing=true"),
    "zero 1 bfloat16": ("dtype=bfloat16", _ZERO[0], f"{_ZERO[1]}1"),
    "zero 2 bfloat16": ("dtype=bfloat16", _ZERO[0], f"{_ZERO[1]}2"),
    "zero 3 bfloat16": ("dtype=bfloat16", _ZERO[0], f"{_ZERO[1]}3"),
    "zero 2 bfloat16, optimizer on the host": (
        *("dtype=bfloat16", _ZERO[0], f"{_ZERO[1]}2"),
        "deepspeed.zero_optimization.offload_optimizer.device=cpu",
    ),
}
STEPS = 10
MOVED = 0.9
"""The least share of the weights that must differ after the steps."""
HELD, PEAK = 0.1, 0.2
"""How far the memory model may be from what is allocated between two steps, and at most within one."""
LAYERS = 8


def run(site: Site) -> Iterator[Fact]:
    for name, overrides in CASES.items():
        try:
            yield {"who": name, **train(site, overrides)}
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:400]}"
            yield {"who": name, "wrong": f"{name}: {said}"}
        gc.collect()
        if not site.rehearsing:
            torch.cuda.empty_cache()


def train(site: Site, overrides: tuple[str, ...]) -> Fact:
    """Ten steps on random rows."""
    config = recipe.load("smollm", ["trainer.learning_rate=1e-6", f"device={site.device}", *overrides])
    before = _allocated(site)
    model = random_qwen(site, getattr(torch, config.dtype), LAYERS)
    trainer = make_policy(config, make_network(config, model), ALONE)
    random.seed(0)
    length = 16 if site.rehearsing else 512
    words = [[random.randrange(4, 250) for _ in range(8 + length)] for _ in range(8)]
    rows = _on(make_rows([line[:8] for line in words], [line[8:] for line in words]), site.device)
    first = _masters(trainer)
    seconds, norms = [], []
    if not site.rehearsing:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS):
        began = time.perf_counter()
        trainer.backward(-trainer.forward(rows).logprobs.sum() / rows.mask.sum())
        norms.append(trainer.step())
        if not site.rehearsing:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    held, peak = _allocated(site) - before, _peak(site) - before
    last = _masters(trainer)
    differ = sum(int((last[name] != tensor).sum()) for name, tensor in first.items())
    share = differ / sum(tensor.numel() for tensor in first.values())
    fact = {
        "moved": round(share, 4),
        "s_of_a_step": round(min(seconds), 3),
        "norms": [round(norms[0], 4), round(norms[-1], 4)],
    }
    wrong = [f"{share:.1%} of the weights moved in {STEPS} steps"] if share < MOVED else []
    if not site.rehearsing:
        shape = Shape.of(model.config)
        training = Training.of(
            config.engines.trainer, config.dtype, config.deepspeed, recompute=config.trainer.gradient_checkpointing
        )
        expected = memory.held(shape.parameters, training).total
        expected += memory.staying(shape, training, shape.parameters)
        largest = memory.update_peak(shape, training, rows.input_ids.numel(), constraint=False)
        for name, found, modelled, allowed in (("held", held, expected, HELD), ("peak", peak, largest, PEAK)):
            fact |= {f"{name}_gib": round(found / 2**30, 2), f"{name}_of_model": round(found / modelled, 3)}
            if abs(found / modelled - 1) > allowed:
                wrong.append(f"{name}: {found / 2**30:.2f} GiB, by the model {modelled / 2**30:.2f}")
    return {**fact, **({"wrong": "; ".join(wrong)} if wrong else {})}


def _masters(trainer: Trainer) -> dict[str, Tensor]:
    """What the optimizer changes, on the CPU, by name: of DeepSpeed's half-precision stages the float32 weights."""
    if isinstance(trainer, DeepSpeedTrainer) and trainer.stage:
        from deepspeed.utils import safe_get_full_fp32_param

        named = trainer.network.model.named_parameters()
        return {name: safe_get_full_fp32_param(p).detach().to("cpu", copy=True) for name, p in named}
    groups = trainer._optimizer.param_groups if isinstance(trainer, TorchTrainer) else []
    learning = [p for group in groups for p in group["params"]]
    return {str(i): p.detach().to("cpu", copy=True) for i, p in enumerate(learning)}


def _allocated(site: Site) -> int:
    return 0 if site.rehearsing else torch.cuda.memory_allocated()


def _peak(site: Site) -> int:
    return 0 if site.rehearsing else torch.cuda.max_memory_allocated()


def _on(rows: Rows, device: str) -> Rows:
    return rows.to(torch.device(device))

"""Trains on fixed rollouts, alone or as one of the ranks that a launcher started; rank 0 writes what happened as JSON.

python training_ranks.py OUT CASE…        each CASE a JSON of {"name", "deepspeed" (null: PyTorch), …}
"""

from __future__ import annotations

import gc
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from building import group, refinement
from refinerl.algorithms.ppo import PPO
from refinerl.batch import collate
from refinerl.constraints.dynamic import Dynamic
from refinerl.contracts import Trainer, World
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.world import Launched, Ranks, WorldOfOne, dist, leave
from refinerl.launch import end_process
from refinerl.records import Anchors
from refinerl.update import Updater
from tiny import tiny_model

GROUPS = [
    group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0)),
    group("b", ([16, 17, 18, 19], -1.0), ([20], -0.5)),
    group("c", ([21, 22], 0.3), ([23, 24, 25], 0.1)),
    group("d", ([26], 1.0), ([27, 28], -1.0)),
]
REFINED = [
    refinement(GROUPS[0].rollouts[0], [11, 12, 40, 41], 1.0),
    refinement(GROUPS[2].rollouts[1], [23, 24, 42], 1.0),
]
STEPS = 10


def trainer(network: Any, case: dict[str, Any], world: World) -> Trainer:
    optimization = Optimization(5e-3, Schedule("cosine", STEPS * 2, 0.2, 0.1), weight_decay=0.1)
    checkpointing = case.get("checkpointing", False)
    if case["deepspeed"] is None:
        return TorchTrainer(network, optimization, gradient_checkpointing=checkpointing)
    return DeepSpeedTrainer(network, optimization, world, case["deepspeed"], gradient_checkpointing=checkpointing)


def frozen(network: Any, case: dict[str, Any], world: World) -> Trainer:
    if case["deepspeed"] is None:
        return TorchTrainer(network)
    return DeepSpeedTrainer(network, None, world, case["deepspeed"])


def measure(case: dict[str, Any], world: World) -> dict[str, int]:
    """Bytes that this rank holds for a trained model: when its gradient is complete, and after the step."""
    model = tiny_model(tied=False, hidden=64, layers=4)
    parameters = model.num_parameters()
    policy = trainer(PolicyNetwork(model), case, world)
    rows = collate(GROUPS)
    policy.backward(policy.forward(rows).logprobs.sum())
    policy.step()
    del model
    after_step = held(policy)
    policy.backward(policy.forward(rows).logprobs.sum())
    return {"parameters": parameters, "after_step": after_step, "with_gradient": held(policy)}


def held(trained: Any) -> int:
    """Bytes of the storages of all tensors that can be reached from it, each once."""
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [trained]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.FunctionType | types.FrameType):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            if thing.is_leaf:
                waiting.append(thing.grad)
        waiting += gc.get_referents(thing)
    return sum(sizes.values())


def run(case: dict[str, Any], world: World, folder: Path) -> dict[str, Any]:
    if case.get("measure"):
        return dict(measure(case, world))
    tied, rank = case.get("tied", True), case.get("lora", 0)
    model = tiny_model(tied=tied)
    torch.manual_seed(0)  # the adapter's beginning is drawn
    policy = trainer(LoraNetwork(model, rank=rank, alpha=rank) if rank else PolicyNetwork(model), case, world)
    critic = trainer(ValueNetwork(tiny_model(seed=1).base_model), case, world)
    updater = Updater(
        policy=policy,
        reference=None if rank else frozen(PolicyNetwork(tiny_model(tied=tied)), case, world),
        critic=critic,
        algorithm=PPO(),
        constraint=Dynamic(refiner=None, beta=0.1, apply="loss"),  # type: ignore[arg-type] - the rows are made by hand
        world=world,
        minibatch=4,
        epochs=1,
        token_budget=12,
        max_rows=None,
        entropy_bonus=0.01,
        seed=0,
    )
    groups = GROUPS[world.rank :: world.size]
    mine = [r for r in REFINED if any(r.rollout in g.rollouts for g in groups)]
    if case.get("resume"):
        policy.load(folder / case["resume"] / "policy")
        critic.load(folder / case["resume"] / "critic")
    steps = range(case.get("first", 1), case.get("last", STEPS) + 1)
    curve = [one_step(updater, groups, mine, step, poison=step == case.get("poison")) for step in steps]
    for name, part in (("policy", policy), ("critic", critic)):
        if world.rank == 0:
            (folder / case["name"] / name).mkdir(parents=True)
        world.barrier()
        part.save(folder / case["name"] / name)
        part.export(folder / case["name"] / f"{name}-hf")
    weights = {name: [*w.shape, float(w.double().sum())] for name, w in policy.weights()}
    exported = None
    if world.rank == 0 and not rank:
        model = AutoModelForCausalLM.from_pretrained(folder / case["name"] / "policy-hf")
        exported = {name: [*w.shape, float(w.detach().double().sum())] for name, w in model.named_parameters()}
    return {"curve": curve, "weights": weights, "exported": exported, "steps": policy.steps}


def one_step(updater: Updater, groups: Any, refined: Any, step: int, *, poison: bool) -> dict[str, Any]:
    batch = collate(groups, refined, merge=False)
    batch, measured = updater.measure(batch, kl=True)
    penalty, _ = updater.penalty(batch, Anchors(tuple(refined)))
    batch = updater.algorithm.advantages(batch, penalty, updater.world)
    if poison and updater.world.rank == updater.world.size - 1:
        batch = batch.with_(advantages=batch.advantages * float("nan"))
    update = updater.update(batch, step)
    return {**measured, **update.metrics, "steps": update.steps, "skipped": list(update.skipped)}


def main() -> None:
    folder, cases = Path(sys.argv[1]), [json.loads(text) for text in sys.argv[2:]]
    launched = Launched.read()
    world: World = WorldOfOne()
    if launched is not None:
        store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
        world = Ranks(launched, store, 100)
    found = {case["name"]: run(case, world, folder) for case in cases}
    if world.rank == 0:
        (folder / f"found-{world.size}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
    end_process(0)

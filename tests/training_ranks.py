"""Trains on fixed rollouts, alone or as one of the ranks that a launcher started; rank 0 writes what happened as JSON.

python training_ranks.py OUT CASE…        each CASE a JSON of {"name", "deepspeed" (null: PyTorch), …}
"""

from __future__ import annotations

import gc
import json
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from building import group, refinement
from refinerl.algorithms.ppo import PPO
from refinerl.constraints.dynamic import Dynamic
from refinerl.contracts import Trainer, World
from refinerl.engines import packing
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.packing import tree_states, why_not
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.world import Launched, Ranks, WorldOfOne, dist, leave
from refinerl.loop.batch import collate
from refinerl.loop.update import Updater
from refinerl.records import Anchors, Refinement, RolloutGroup, Rows
from refinerl.run.launch import end_process
from tiny import halved, make_rows, tiny_model

GROUPS = [
    group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0)),
    group("b", ([16, 17, 18, 19], -1.0), ([20], -0.5)),
    group("c", ([21, 22], 0.3), ([23, 24, 25], 0.1)),
    group("d", ([26], 1.0), ([27, 28], -1.0)),
]


def refined(groups: Sequence[RolloutGroup]) -> list[Refinement]:
    return [
        refinement(groups[0].rollouts[0], [11, 12, 40, 41], 1.0),
        refinement(groups[2].rollouts[1], [23, 24, 42], 1.0),
    ]


def asked(group: RolloutGroup, tokens: Iterable[int]) -> RolloutGroup:
    """The same responses to another prompt."""
    prompt = replace(group.prompt, token_ids=tuple(tokens))
    return replace(group, prompt=prompt, rollouts=tuple(replace(r, prompt=prompt) for r in group.rollouts))


UNLIKE = [
    asked(GROUPS[0], range(100, 140)),
    asked(GROUPS[1], [50]),
    asked(GROUPS[2], range(140, 180)),
    asked(GROUPS[3], [60]),
]
"""Of two ranks the first has long prompts and refinements, the second nothing that pays."""
NOTHING = collate(())
STEPS = 10
MICRO_BATCHES = 32
TREES: list[int] = []
"""Tokens of each tree that this rank has computed."""


def counted(trunk: Any, tree: Any, *given: Any) -> Tensor:
    TREES.append(len(tree))
    return tree_states(trunk, tree, *given)


def trainer(network: Any, case: dict[str, Any], world: World) -> Trainer:
    optimization = Optimization(5e-3, Schedule("cosine", STEPS * 2, 0.2, 0.1), weight_decay=0.1)
    checkpointing = case.get("checkpointing", False)
    share(network, case)
    if case["deepspeed"] is None:
        return TorchTrainer(network, optimization, gradient_checkpointing=checkpointing)
    return DeepSpeedTrainer(network, optimization, world, case["deepspeed"], gradient_checkpointing=checkpointing)


def share(network: Any, case: dict[str, Any]) -> None:
    if case.get("sharing"):
        assert why_not(network.trunk) == ""
        network.sharing = case["sharing"]


def frozen(network: Any, case: dict[str, Any], world: World) -> Trainer:
    share(network, case)
    if case["deepspeed"] is None:
        return TorchTrainer(network)
    return DeepSpeedTrainer(network, None, world, case["deepspeed"])


def measure(case: dict[str, Any], world: World) -> dict[str, int]:
    """Bytes that this rank holds for a trained model: when its gradient is complete, and after the step."""
    model = tiny_model(tied=False, hidden=64, layers=4).to(getattr(torch, case.get("dtype", "float32")))
    parameters = model.num_parameters()
    policy = trainer(PolicyNetwork(model), case, world)
    rows = collate(GROUPS)
    policy.backward(policy.forward(rows).logprobs.sum())
    policy.step()
    del model
    after_step = held(policy)
    policy.backward(policy.forward(rows).logprobs.sum())
    return {"parameters": parameters, "after_step": after_step, "with_gradient": held(policy)}


def precision(case: dict[str, Any], world: World, folder: Path) -> dict[str, float]:
    """A network in bfloat16: how far the sum of many micro-batches is from exact, and what ten small steps move."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    network, twin = (PolicyNetwork(halved(tiny_model())) for _ in range(2))
    optimization = Optimization(1e-6, max_grad_norm=None)
    policy = DeepSpeedTrainer(network, optimization, world, case["deepspeed"])
    for seed in range(MICRO_BATCHES):
        rows = random_row(seed * world.size + world.rank)
        policy.backward(-policy.forward(rows).logprobs.sum())
    norm = policy.step()
    exact = {name: torch.zeros(p.shape) for name, p in twin.named_parameters()}
    before = {name: p.detach().float() for name, p in twin.named_parameters()}
    for seed in range(MICRO_BATCHES * world.size):
        twin.zero_grad()
        (-twin(random_row(seed)).logprobs.sum()).backward()
        for name, p in twin.named_parameters():
            exact[name] += p.grad.float()
    if hasattr(policy._engine.optimizer, "_hp_optimizer_states_linked"):  # after the first of its groups took a step
        policy._engine.optimizer._hp_optimizer_states_linked = False
        policy._engine.optimizer._lazy_init_hp_params_optimizer_state()
    moment = gathered(network, lambda p: safe_get_full_optimizer_state(p, "exp_avg"))
    wanted = torch.cat([g.flatten() for g in exact.values()])
    found = torch.cat([moment[name].flatten() / 0.1 for name in exact])  # AdamW's first moment is (1 − β₁)·gradient
    policy.save(folder / case["name"])
    small_steps(policy, world)
    masters = gathered(network, safe_get_full_fp32_param)
    weights = {f"model.{name}": w for name, w in policy.weights()}
    twin.zero_grad()
    resumed = DeepSpeedTrainer(twin, optimization, world, case["deepspeed"])
    resumed.load(folder / case["name"])
    small_steps(resumed, world)
    again = gathered(twin, safe_get_full_fp32_param)
    count = sum(w.numel() for w in masters.values())
    return {
        "error": float((found - wanted).norm() / wanted.norm()),
        "norm": norm / float(wanted.norm()),
        "moved": sum(int((masters[name] != w).sum()) for name, w in before.items()) / count,
        "off": sum(int((masters[name].bfloat16() != w).sum()) for name, w in weights.items()) / count,
        "resumed": float(all(torch.equal(w, again[name]) for name, w in masters.items())),
    }


def small_steps(policy: Trainer, world: World) -> None:
    for _ in range(9):
        policy.backward(-policy.forward(random_row(world.rank)).logprobs.sum())
        policy.step()


def gathered(network: Any, read: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What DeepSpeed holds for each parameter, whole."""
    return {name: read(p).detach().clone() for name, p in network.named_parameters()}


def random_row(seed: int) -> Rows:
    ids = torch.randint(5, 250, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
    return make_rows([ids[:4]], [ids[4:]])


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
    if case.get("precision"):
        return dict(precision(case, world, folder))
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
        constraint=Dynamic(beta=0.1, apply="loss"),
        world=world,
        minibatch=4,
        epochs=1,
        token_budget=case.get("budget", 12),
        max_rows=case.get("rows"),
        entropy_bonus=0.01,
        seed=0,
        sharing=case.get("sharing", "never"),
    )
    every = UNLIKE if case.get("unlike") else GROUPS
    groups = every[world.rank :: world.size]
    mine = [r for r in refined(every) if any(r.rollout in g.rollouts for g in groups)]
    if case.get("resume"):
        policy.load(folder / case["resume"] / "policy")
        critic.load(folder / case["resume"] / "critic")
    steps = range(case.get("first", 1), case.get("last", STEPS) + 1)
    before = len(TREES)
    share = case.get("share", True)
    curve = [one_step(updater, groups, mine, step, poison=step == case.get("poison"), share=share) for step in steps]
    trees = world.all_gather_object(len(TREES) - before)
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
    return {"curve": curve, "weights": weights, "exported": exported, "steps": policy.steps, "trees": trees}


def one_step(updater: Updater, groups: Any, refined: Any, step: int, *, poison: bool, share: bool) -> dict[str, Any]:
    batch = collate(groups, refined, merge=False)
    batch, others = updater.measure(batch, NOTHING, kl=True, step=step)
    penalty, _ = updater.penalty(batch, Anchors(tuple(refined)))
    batch = updater.algorithm.advantages(batch, penalty, updater.world)
    if poison and updater.world.rank == updater.world.size - 1:
        batch = batch.with_(advantages=batch.advantages * float("nan"))
    update = updater.update(batch, step, others, share=share)
    return {**update.metrics, "steps": update.steps, "skipped": list(update.skipped)}


def main() -> None:
    folder, cases = Path(sys.argv[1]), [json.loads(text) for text in sys.argv[2:]]
    packing.tree_states = counted
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

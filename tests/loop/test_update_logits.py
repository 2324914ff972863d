"""No update ever holds the [N, V] logits: every byte that PyTorch takes during one is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from allocated import taken
from building import group, refinement
from refinerl.algorithms.dapo import DAPO
from refinerl.algorithms.ppo import PPO
from refinerl.constraints.dynamic import Dynamic
from refinerl.constraints.static import Static
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.packing import why_not
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.world import WorldOfOne
from refinerl.kernels import chunked, naive
from refinerl.kernels.cross_entropy import Impl
from refinerl.kernels.prefixes import Sharing
from refinerl.loop.batch import collate
from refinerl.loop.update import Updater
from refinerl.records import Anchors
from tiny import tiny_model

VOCABULARY, LENGTH, ROWS_OF_A_CHUNK = 20_000, 120, 8
CHUNK = ROWS_OF_A_CHUNK * VOCABULARY * 4
GROUP = group("a", (range(11, 11 + LENGTH), 0.0), (range(50, 50 + LENGTH), 1.0))
REFINED = refinement(GROUP.rollouts[0], [*range(11, 60), *range(200, 200 + LENGTH - 49)], 1.0)
LOGITS = LENGTH * VOCABULARY * 2
"""Bytes of the logits of one row of y or ỹ alone, in 16 bits."""


def trainer(impl: Impl, *, lora: bool = False, learns: bool = True, sharing: Sharing = "never") -> TorchTrainer:
    model = tiny_model(VOCABULARY, hidden=8, layers=1, scale=0.1)
    if not lora:
        network = PolicyNetwork(model, impl=impl)
    else:
        pytest.importorskip("peft", reason="peft is not installed")
        from refinerl.engines.lora import LoraNetwork

        network = LoraNetwork(model, rank=2, alpha=4, impl=impl)
    if sharing != "never":
        assert why_not(network.trunk) == ""
        network.sharing = sharing
    return TorchTrainer(network, Optimization(learning_rate=1e-3) if learns else None)


def step(constraint: Any, impl: Impl, *, lora: bool, ppo: bool, sharing: Sharing = "never") -> Callable[[], None]:
    """All of an update: π_old, reference, penalty, and the gradients of y and ỹ in one micro-batch."""
    value = ValueNetwork(tiny_model(VOCABULARY, hidden=8, layers=1).model)
    part = Updater(
        policy=trainer(impl, lora=lora, sharing=sharing),
        reference=None if lora else trainer(impl, learns=False, sharing=sharing),
        critic=TorchTrainer(value, Optimization(learning_rate=1e-3)) if ppo else None,
        algorithm=PPO() if ppo else DAPO(),
        constraint=constraint,
        world=WorldOfOne(),
        minibatch=4,
        epochs=2,
        token_budget=10_000,
        max_rows=None,
        entropy_bonus=0.01,
        seed=0,
        sharing=sharing,
    )

    def run() -> None:
        anchors = Anchors((REFINED,) if isinstance(constraint, Dynamic) else ())
        batch, _ = part.measure(collate([GROUP], anchors.refinements, merge=False), collate(()), kl=True)
        penalty, _ = part.penalty(batch, anchors)
        update = part.update(part.algorithm.advantages(batch, penalty, part.world), step=1)
        assert update.steps == 2
        assert not update.skipped

    return run


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunked.WORKSPACE, "cpu", CHUNK)
    monkeypatch.setattr(naive, "WORKSPACE", CHUNK)


DYNAMIC = [Dynamic(beta=0.5, apply=apply) for apply in ("loss", "reward")]
STATIC = [Static(beta=0.5, apply="loss", estimator="k3"), Static(beta=0.5)]


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora"])
@pytest.mark.parametrize("constraint", [*DYNAMIC, *STATIC], ids=lambda c: f"{type(c).__name__}-{c.apply}")
@pytest.mark.slow
def test_a_whole_update_in_chunks(constraint: Any, lora: bool) -> None:
    largest, most = taken(step(constraint, "cpu", lora=lora, ppo=not lora))
    assert CHUNK <= largest <= 1.1 * CHUNK
    assert most < 2 * LOGITS, "the update's tensors together"


@pytest.mark.parametrize("constraint", [DYNAMIC[0], STATIC[0]], ids=["dynamic", "static"])
def test_shared_prefixes_have_chunks_too(constraint: Any) -> None:
    largest, most = taken(step(constraint, "cpu", lora=False, ppo=False, sharing="always"))
    assert CHUNK <= largest <= 1.1 * CHUNK
    assert most < 2 * LOGITS, "the update's tensors together"


def test_the_twin_has_chunks_too_and_logits_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    largest, _ = taken(step(DYNAMIC[0], "torch", lora=False, ppo=False))
    assert largest <= 1.1 * CHUNK
    monkeypatch.setattr(naive, "WORKSPACE", 2**30)
    largest, _ = taken(step(DYNAMIC[0], "torch", lora=False, ppo=False))
    assert largest >= 2 * LENGTH * VOCABULARY * 4  # of both y

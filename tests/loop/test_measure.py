"""Measurements before the gradient: which responses KL and entropy are over, and what they leave as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from building import group, refinement
from refinerl.constraints.none import NoConstraint
from refinerl.constraints.static import Static
from refinerl.contracts import ALONE, World
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.torch import TorchTrainer
from refinerl.loop.batch import collate, collate_refinements
from refinerl.loop.measure import Measurer
from refinerl.loop.rollout import Collected
from refinerl.records import Anchors, Measured, Refinement
from threads import on_ranks
from tiny import tiny_model

KEPT = [group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0)), group("b", ([16, 17, 18, 19], -1.0), ([20], -0.5))]
DROPPED = [group("c", ([21, 22], 1.0), ([23, 24, 25], 1.0)), group("d", ([30] * 9, -1.0), ([31], -1.0))]
EVERY = ("policy/entropy", "policy/kl_to_reference", "policy/kl_to_reference_sum")


def measurer(constraint=None, *, budget=10_000):
    """A policy that has moved away from its reference."""
    moved = tiny_model()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1.1)
    policy, reference = (TorchTrainer(PolicyNetwork(model)) for model in (moved, tiny_model()))
    return Measurer(
        policy=policy,
        reference=reference,
        critic=None,
        constraint=constraint or NoConstraint(),
        world=ALONE,
        token_budget=budget,
        max_rows=None,
    )


def seen(kept, others, *, kl=True, **options) -> dict[str, float]:
    model = measurer(**options)
    return model.metrics(*model.measure(collate(kept), collate(others), kl=kl))


def test_kl_and_entropy_are_over_all_sampled_responses():
    """Those of dropped groups differ, so that the mean over the kept ones alone is another."""
    whole, alone = seen(KEPT + DROPPED, []), seen(KEPT, [])
    found = seen(KEPT, DROPPED)
    for name in EVERY:
        assert found[name] == pytest.approx(whole[name], rel=1e-5)
        assert found[name] != pytest.approx(alone[name], rel=1e-3)


def test_a_step_that_keeps_no_group_has_kl_and_entropy():
    found, whole = seen([], DROPPED), seen(DROPPED, [])
    assert {name: found[name] for name in EVERY} == pytest.approx({name: whole[name] for name in EVERY}, rel=1e-5)


def test_the_batch_of_the_update_does_not_depend_on_the_other_responses():
    with_, without = (
        measurer(Static(beta=0.1), budget=20).measure(collate(KEPT), collate(others), kl=True)[0]
        for others in (DROPPED, [])
    )
    for name, tensor in with_.tensors().items():
        assert torch.equal(tensor.nan_to_num(7.0), getattr(without, name).nan_to_num(7.0)), name
    assert isinstance(with_, Measured)


def test_between_the_measurements_of_the_kl_what_costs_nothing_is_measured():
    assert not set(EVERY) & seen(KEPT, DROPPED, kl=False).keys()
    assert not set(EVERY) & seen(KEPT, DROPPED, kl=False, constraint=Static(beta=0.1)).keys()
    assert set(EVERY) & seen(KEPT, [], kl=False).keys() == {"policy/entropy"}
    assert set(EVERY) <= seen(KEPT, [], kl=False, constraint=Static(beta=0.1)).keys()


def test_responses_without_a_reward_were_sampled_too():
    unscored = group("e", ([40, 41], 0.0), ([42, 43, 44], 1.0), ([45, 46, 47], None))
    collected = Collected((*KEPT, unscored), tuple(DROPPED), 0)
    assert [len(g.rollouts) for g in collected.others] == [2, 2, 1]
    scored = group("e", ([40, 41], 0.0), ([42, 43, 44], 1.0), ([45, 46, 47], 0.5))
    found, whole = seen([*KEPT, unscored], collected.others), seen([*KEPT, scored], DROPPED)
    assert {name: found[name] for name in EVERY} == pytest.approx({name: whole[name] for name in EVERY}, rel=1e-5)


def test_ranks_measure_together_what_one_measures_alone():
    """One rank dropped everything in many micro-batches, another one nothing: all make as many passes."""
    shares = [([], DROPPED), (KEPT[:1], []), (KEPT[1:], [])]
    models = [measurer(budget=8) for _ in shares]  # made here: threads would share the random state

    def rank(world: World) -> dict[str, float]:
        kept, others = shares[world.rank]
        model = replace(models[world.rank], world=world)
        return model.metrics(*model.measure(collate(kept), collate(others), kl=True))

    alone = seen(KEPT, DROPPED)
    for found in on_ranks(3, rank):
        assert {name: found[name] for name in EVERY} == pytest.approx({name: alone[name] for name in EVERY}, rel=1e-5)


def test_ranks_watch_a_probe_together():
    """A rank without an accepted refinement makes as many passes; identical refinements weigh as many as they are."""
    (first, second), (third, _) = KEPT[0].rollouts, KEPT[1].rollouts
    probes = [
        (refinement(first, [11, 40], 1.0), refinement(second, [50, 51, 52], 2.0, accepted=False)),
        (),
        (refinement(third, [60], 1.0, weight=2),),
    ]
    models = [measurer(budget=8) for _ in probes]

    def watched(model: Measurer, made: tuple[Refinement, ...]) -> float:
        batch, _ = model.measure(collate(KEPT), collate(()), kl=False)
        return model.watch(batch, Anchors(probes=made))["refiner/ce"]

    found = on_ranks(3, lambda world: watched(replace(models[world.rank], world=world), probes[world.rank]))
    model = measurer()
    with torch.no_grad():
        by_hand = [
            -model.policy.forward(collate_refinements([r])).logprobs.sum()
            for r in (probes[0][0], probes[2][0], probes[2][0])
        ]
    assert found == pytest.approx([float(sum(by_hand)) / 4] * 3, rel=1e-5)
    batch, _ = model.measure(collate(KEPT), collate(()), kl=False)
    assert math.isnan(model.watch(batch, Anchors(probes=()))["refiner/ce"])
    assert model.watch(batch, Anchors()) == {"constraint/cost": 0.0}

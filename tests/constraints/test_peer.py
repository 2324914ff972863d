"""The best response to the same prompt as ỹ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from building import group
from refinerl.algorithms.dapo import DAPO
from refinerl.constraints.peer import Peer
from refinerl.contracts import ALONE
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.torch import TorchTrainer
from refinerl.loop.batch import collate
from refinerl.loop.update import Updater
from refining import refiner
from scripted import Points
from tiny import tiny_model
from toy import Toy, metrics, rollouts

GROUP = group("a", ([10, 11], 0.0), ([20], 1.0), ([30, 31], 1.0), ([40, 41, 42], -0.5), ([50], None))
DEAD = group("b", ([12], 0.5), ([13], 0.5))


def anchored(*groups, options=(), **made):
    """The anchors, with a refiner whose model is never asked: it has none."""
    task = Points()
    task.score = None  # type: ignore[method-assign, assignment] - the rewards are known
    task.max_reward = made.pop("max_reward", 2.0)
    constraint = Peer(**dict(options))
    constraint.connect(replace(refiner(None), task=task, **made))
    return constraint.anchor(groups, step=1)


def test_the_best_member_of_the_group_teaches_those_below_it():
    anchors = anchored(GROUP, DEAD)
    found = {r.rollout.key: (r.completion.token_ids, r.reward.value, r.accepted, r.weight) for r in anchors.refinements}
    assert found == {
        ("a", 0): ((20,), 1.0, True, 2),  # the lowest sample of the two best; merged with that of sample 3
        ("a", 1): ((20,), 1.0, False, 0),
        ("a", 2): ((20,), 1.0, False, 0),  # equal rewards
        ("a", 3): ((20,), 1.0, True, 0),
        ("b", 0): ((12,), 0.5, False, 0),
        ("b", 1): ((12,), 0.5, False, 0),
    }
    assert anchors.metrics["refiner/tokens"] == anchors.metrics["refiner/tokens_read"] == 0
    assert anchors.metrics["refiner/improved_ratio"] == anchors.metrics["refiner/accepted_fraction"] == 2 / 7
    assert anchors.metrics["refiner/reward_gain"] == pytest.approx((1 + 1.5) / 6)
    assert anchors.metrics["refiner/beyond_best_sibling"] == 0
    assert anchors.metrics["refiner/skipped_too_long"] == 0


def test_filter_choice_and_room():
    assert not any(r.accepted for r in anchored(GROUP, options={"accept": "perfect"}).refinements)
    perfect = anchored(GROUP, options={"accept": "perfect"}, max_reward=1.0)
    assert [r.rollout.sample for r in perfect.refinements if r.accepted] == [0, 3]
    assert perfect.metrics["refiner/skipped_perfect"] == 2
    assert [r.rollout.sample for r in anchored(GROUP, where="beyond").refinements] == [1, 2]
    assert anchored(GROUP, where="unsolved", max_reward=1.0).refinements == ()
    assert anchored(GROUP, context_length=3).refinements == ()


def test_a_sibling_that_was_cut_off_teaches_unless_it_may_not():
    cut = replace(GROUP.rollouts[1], completion=replace(GROUP.rollouts[1].completion, finish_reason="length"))
    cut_group = replace(GROUP, rollouts=(GROUP.rollouts[0], cut))
    assert [r.accepted for r in anchored(cut_group).refinements] == [True, False]
    assert not any(r.accepted for r in anchored(cut_group, options={"accept_truncated": False}).refinements)


def test_the_gradient_is_that_of_cross_entropy_on_the_sibling():
    """By plain autograd in float64; the advantages are 0."""
    policy = TorchTrainer(PolicyNetwork(tiny_model().double()), Optimization(1e-9))
    constraint = Peer(beta=0.5)
    constraint.connect(refiner(None))
    part = Updater(
        policy=policy,
        reference=None,
        critic=None,
        algorithm=DAPO(),
        constraint=constraint,
        world=ALONE,
        minibatch=8,
        epochs=1,
        token_budget=10_000,
        max_rows=None,
        entropy_bonus=0.0,
        seed=0,
    )
    four = replace(GROUP, rollouts=GROUP.rollouts[:4])
    rows = collate([four], constraint.anchor([four], 1).refinements)
    batch, _ = part.measure(rows, collate(()), kl=False)
    kept: dict[str, torch.Tensor] = {}
    step = policy.step

    def keep() -> float:
        kept.update({n: p.grad.clone() for n, p in policy.network.named_parameters() if p.grad is not None})
        return step()

    policy.step = keep  # type: ignore[method-assign]
    twin = tiny_model().double()
    metrics = part.update(batch.with_advantages(torch.zeros(batch.mask.shape)), step=1).metrics
    x, sibling = GROUP.prompt.token_ids, 20
    nll = -twin(torch.tensor([x])).logits[0, -1].log_softmax(-1)[sibling]
    loss = 0.5 * 2 * nll / 4  # β · two y of four
    loss.backward()
    assert metrics["constraint/loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert metrics["constraint/ce"] == pytest.approx(float(nll.detach()), rel=1e-6)
    for name, parameter in twin.named_parameters():
        assert torch.allclose(kept[f"model.{name}"], parameter.grad, rtol=0, atol=1e-10), name


@pytest.mark.parametrize(
    "options",
    [
        ["algorithm.name=dapo", "constraint.on_dropped=true", "algorithm.max_resamples=0"],
        ["algorithm.name=ppo", "algorithm.samples_per_prompt=4", "algorithm.epochs=2"],
        ["constraint.apply=reward", "refiner.where=all"],
        ["lora.rank=2", "constraint.reduction=token"],
    ],
    ids=["dapo", "ppo", "reward", "lora"],
)
def test_a_run_writes_its_siblings_into_the_rows(toy: Toy, tmp_path, options):
    assert toy.run(tmp_path / "run", "constraint.name=peer", *options) == 0
    for step, row in enumerate(metrics(tmp_path / "run"), 1):
        assert row["refiner/tokens"] == row["refiner/failed"] == 0
        rows = rollouts(tmp_path / "run", step)
        taught = [r for r in rows if r["refinement"] and r["refinement"]["accepted"]]
        refined = [r for r in rows if r["selected"] or r["refinement"]]  # of the dropped ones those that came back
        assert len(taught) == pytest.approx(row["refiner/accepted_fraction"] * len(refined), abs=0.01)
        for found in taught:
            members = [r for r in rows if r["prompt"]["id"] == found["prompt"]["id"]]
            best = max(members, key=lambda r: (r["reward"]["value"], -r["sample"]))
            assert found["refinement"]["completion"]["token_ids"] == best["completion"]["token_ids"]
            assert best["reward"]["value"] > found["reward"]["value"]
    assert any(row["constraint/ce"] for row in metrics(tmp_path / "run"))

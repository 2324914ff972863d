"""Rows that share prefixes are in the same micro-batches, within the budget; an update is the same either way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from building import completion, prompt, refinement
from refinerl.algorithms.dapo import DAPO
from refinerl.algorithms.ppo import PPO
from refinerl.constraints.dynamic import Dynamic
from refinerl.constraints.static import Static
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.packing import why_not
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.world import WorldOfOne
from refinerl.kernels.prefixes import pays, prefix_tree
from refinerl.loop.batch import collate, micro_batches
from refinerl.loop.update import Updater
from refinerl.records import Anchors, Reward, Rollout, RolloutGroup
from tiny import tiny_model


def group(name: str, question: list[int], *answers: list[int]) -> RolloutGroup:
    x = prompt(name, question)
    rollouts = [Rollout(x, completion(y), Reward(float(i % 2), "scored"), i) for i, y in enumerate(answers)]
    return RolloutGroup(x, tuple(rollouts), position=ord(name[0]))


def tokens_of(batch, part):
    return len(prefix_tree(batch.input_ids[part], batch.attention_mask[part].sum(-1)))


@st.composite
def batches(draw):
    """Groups whose prompts may begin alike, with responses that may."""
    groups = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        question = draw(st.lists(st.integers(5, 6), min_size=1, max_size=25))
        answers = draw(st.lists(st.lists(st.integers(7, 8), min_size=1, max_size=20), min_size=1, max_size=6))
        groups.append(group(name, question, *answers))
    return collate(groups)


@given(batches(), st.integers(1, 120), st.integers(1, 8), st.sampled_from(["auto", "always"]))
def test_micro_batches_keep_within_the_budget(batch, budget, most, sharing):
    rows = torch.arange(len(batch)).flip(0)
    parts = micro_batches(batch, rows, budget, most, sharing)
    assert sorted(torch.cat(parts).tolist()) == sorted(rows.tolist())
    for part in parts:
        lengths = batch.attention_mask[part].sum(-1)
        padded, tree = len(part) * int(lengths.max()), tokens_of(batch, part)
        shares = sharing == "always" or (len(part) > 1 and pays(padded, tree, len(part)))  # as a network decides
        assert len(part) <= most
        assert len(part) == 1 or (tree if shares else padded) <= budget


def test_a_prompts_rows_are_together_and_rows_that_share_nothing_are_with_their_like():
    long = list(range(5, 85))
    sharing = [group(n, [ord(n), *long], *([200 + i, 201, 202] for i in range(4))) for n in "ab"]
    alone = [group(n, [ord(n)], list(range(100, 100 + 10 * i))) for i, n in enumerate("cdef", 1)]
    batch = collate([sharing[0], *alone, sharing[1]])
    parts = micro_batches(batch, torch.arange(len(batch)), 100, None, "auto")
    # Both trees, of 93 tokens each; then the longest with the next, and the rest.
    assert sorted(map(sorted, (p.tolist() for p in parts))) == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9, 10, 11]]
    assert [tokens_of(batch, part) for part in parts[:2]] == [93, 93]
    assert len(micro_batches(batch, torch.arange(len(batch)), 100)) > len(parts)


def test_rows_that_share_nothing_join_trees_that_have_room():
    """So they need no padding; where there is no room, and where the tree would not pay, they are with their like."""
    long = list(range(5, 85))
    sharing = group("a", [97, *long], *([200 + i, 201, 202] for i in range(4)))
    alone = [group(n, [ord(n)], list(range(100, 100 + 10 * i))) for i, n in enumerate("cdef", 1)]
    batch = collate([sharing, *alone])
    for budget, wanted in [
        (500, [[*range(8)]]),
        (160, [[0, 1, 2, 3, 4, 5, 6], [7]]),
        (93, [[0, 1, 2, 3], [4, 5], [6, 7]]),
    ]:
        parts = micro_batches(batch, torch.arange(len(batch)), budget, None, "auto")
        assert sorted(map(sorted, (p.tolist() for p in parts))) == wanted, budget
    many = [group(chr(400 + i), [400 + i], list(range(100, 180))) for i in range(40)]
    tree, *others = micro_batches(collate([sharing, *many]), torch.arange(44), 10_000, None, "auto")
    assert 4 < len(tree) < 44  # then it would no longer be faster than the rows alone
    assert others


def test_a_group_that_is_too_large_is_divided():
    batch = collate([group("a", list(range(5, 45)), *([100 + i, *range(150, 160)] for i in range(8)))])
    parts = micro_batches(batch, torch.arange(8), 80, None, "always")
    assert [len(part) for part in parts] == [3, 3, 2]
    assert all(tokens_of(batch, part) <= 80 for part in parts)


def test_the_largest_trees_come_first():
    lengths = {"a": 30, "b": 60, "c": 45}
    batch = collate([group(n, [ord(n), *range(5, 5 + lengths[n])], [200, 201], [202, 203]) for n in lengths])
    parts = micro_batches(batch, torch.arange(len(batch)), 66, None, "always")
    assert [tokens_of(batch, part) for part in parts] == [65, 50, 35]


X = list(range(5, 25))
GROUPS = [
    group("a", X, [30, 31, 32], [30, 31, 33, 34], [35], [30, 31, 32]),
    group("b", X[:12], [40, 41, 42], [43, 44], [40, 41], [45, 46, 47, 48]),
]
ROLLOUTS = [rollout for g in GROUPS for rollout in g.rollouts]
REFINED = [refinement(ROLLOUTS[i], y, 2.0) for i, y in ((0, [30, 31, 32, 50]), (1, [30, 36]), (5, [43, 44]))]


class KeepsGradients(TorchTrainer):
    """A trainer whose step is not taken, so that the accumulated gradients can be read."""

    def step(self) -> float:
        return 1.0


@pytest.mark.parametrize(("budget", "step"), [(40, None), (10_000, 1)], ids=["measured", "in the update"])
@pytest.mark.parametrize("constraint", [Dynamic(beta=0.5), Static(beta=0.5, apply="loss", estimator="k3")])
@pytest.mark.parametrize("algorithm", [DAPO, PPO])
def test_an_update_is_the_same(algorithm, constraint, budget, step):
    """Whether π_old is measured before, or taken from the update's own forward pass."""
    found = []
    for sharing in ("never", "always"):
        optimization = Optimization(learning_rate=1e-2, max_grad_norm=1e9)
        policy = KeepsGradients(PolicyNetwork(tiny_model().double()), optimization)
        reference = TorchTrainer(PolicyNetwork(tiny_model(seed=1).double()))
        critic = KeepsGradients(ValueNetwork(tiny_model(seed=2).double().model), optimization)
        with torch.no_grad():
            critic.network.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        for trainer in (policy, reference, critic):
            if sharing == "always":
                assert why_not(trainer.network.trunk) == ""
                trainer.network.sharing = sharing
        part = Updater(
            policy=policy,
            reference=reference,
            critic=critic if algorithm is PPO else None,
            algorithm=algorithm(),
            constraint=constraint,
            world=WorldOfOne(),
            minibatch=8,
            epochs=1,
            token_budget=budget,
            max_rows=None,
            entropy_bonus=0.01,
            seed=0,
            sharing=sharing,
        )
        anchors = Anchors(tuple(REFINED) if isinstance(constraint, Dynamic) else ())
        rows = collate(GROUPS, anchors.refinements, merge=False)
        batch, others = part.measure(rows, collate(()), kl=True, step=step)
        batch = part.algorithm.advantages(batch, part.penalty(batch, anchors)[0], part.world)
        update = part.update(batch, 1, others)
        networks = [policy.network, *([critic.network] if algorithm is PPO else [])]
        gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
        found.append((update.metrics, gradients))
    (metrics, wanted), (others, got) = found
    assert metrics["update/tokens_shared"] == 0
    assert others["update/tokens_shared"] > 0.4
    for name, value in metrics.items():
        if name != "update/tokens_shared":
            assert others[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    for mine, theirs in zip(got, wanted, strict=True):
        assert float((mine - theirs).norm()) <= 1e-6 * max(1.0, float(theirs.norm()))  # old logprobs are float32

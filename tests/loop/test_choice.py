"""Where the refiner is asked, worked out by hand and over random groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from building import group
from refinerl.loop.choice import choose, dead
from refinerl.loop.rollout import revive
from refining import refine, rollout
from threads import on_ranks

SOLVED = group("s", ([1], 1.0), ([2], 0.0), ([3], None))
MIXED = group("m", ([1], 0.5), ([2], 0.0), ([3], 0.5))
DEAD = group("z", ([1], 0.0), ([2], 0.0))
GROUPS = [SOLVED, MIXED, DEAD]


def chosen(**options):
    return [f"{r.prompt.id}{r.sample}" for r in choose(GROUPS, max_reward=1.0, **options)]


def test_where_the_refiner_is_asked():
    assert chosen() == ["s1", "m0", "m1", "m2", "z0", "z1"]
    assert chosen(accept_all=True) == ["s0", "s1", "m0", "m1", "m2", "z0", "z1"]
    assert chosen(where="unsolved") == ["m0", "m1", "m2", "z0", "z1"]
    assert chosen(where="beyond") == ["m0", "m2", "z0", "z1"]
    assert [dead(g, 1.0) for g in GROUPS] == [False, False, True]
    assert not dead(group("p", ([1], 1.0), ([2], 1.0)), 1.0)


def test_a_prompt_may_have_a_highest_reward_of_its_own():
    half = group("h", ([1], 0.5), ([2], 0.0))
    members = tuple(replace(r, reward=r.reward and replace(r.reward, most=0.5)) for r in half.rollouts)
    half = replace(half, rollouts=members)
    assert [r.sample for r in choose([half], max_reward=1.0)] == [1]
    assert choose([half], max_reward=1.0, where="unsolved") == []
    assert dead(replace(half, rollouts=members[1:]), 1.0)
    assert not dead(replace(half, rollouts=members[:1]), 1.0)


def test_without_a_highest_reward_no_group_is_solved():
    assert len(choose(GROUPS, where="unsolved")) == 7
    assert [f"{r.prompt.id}{r.sample}" for r in choose(GROUPS, where="beyond")] == ["s0", "m0", "m2", "z0", "z1"]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(0.2, ["z0"]), (0.25, ["z0", "z1"]), (0.5, ["m0", "m1", "z0", "z1"]), (0.7, ["m0", "m1", "m2", "z0", "z1"])],
)
def test_a_budget_goes_to_dead_groups_first_then_to_unsolved_ones(budget, expected):
    """Of eight rollouts."""
    assert chosen(budget=budget) == expected


def test_a_budget_is_that_of_all_ranks():
    def work(world):
        mine = GROUPS[world.rank :: world.size]
        return {r.key for r in choose(mine, budget=0.5, max_reward=1.0, world=world)}

    (alone,) = on_ranks(1, work)
    assert len(alone) == 4
    assert set().union(*on_ranks(2, work)) == alone


def test_a_member_that_was_not_revived_still_outdoes_its_siblings():
    dropped = group("d", ([1], 0.0), ([2], 0.5))
    for seed in range(4):
        (half,) = revive([dropped], 1, 1.0, seed)
        assert sorted(half.rewards) == [0.0, 0.5]
        assert len(choose([half], where="beyond", max_reward=1.0)) == (half.rollouts[0].sample == 1)


REWARDS = {"bad": -1.0, "fair": 0.0, "badly": 0.5, "good": 1.0}
TEXTS = st.sampled_from(sorted(REWARDS))


@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_beyond_every_accepted_refinement_is_better_than_the_groups_best(texts, reply):
    rollouts = [rollout(text, REWARDS[text], number) for number, text in enumerate(texts)]
    _, anchors = refine(dict.fromkeys(REWARDS, reply), *rollouts, where="beyond")
    best = max(REWARDS[text] for text in texts)
    accepted = [r for r in anchors.refinements if r.accepted]
    assert all(r.reward.value > best for r in accepted)
    assert bool(accepted) == (REWARDS[reply] > best)
    if accepted:
        assert anchors.metrics["refiner/beyond_best_sibling"] == 1
        assert anchors.metrics["refiner/in_dead_groups"] == (len(set(texts)) == 1)


@pytest.mark.parametrize(("budget", "affordable"), [(0.57, 57), (0.29, 29), (0.58, 58), (0.999, 99)])
def test_a_budget_is_a_share_of_the_rollouts_also_where_floats_are_not(budget, affordable):
    """0.57 · 100 is 56.99999999999999."""
    many = group("m", *(([i], 0.0) for i in range(100)))
    assert len(choose([many], budget=budget, max_reward=1.0)) == affordable

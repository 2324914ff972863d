"""Records become rows; rows become minibatches and micro-batches."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from building import completion, group, measured, prompt, refinement, reward
from refinerl.loop.batch import collate, micro_batches, minibatches, scatter_rows
from refinerl.records import Rollout, RolloutGroup
from threads import on_ranks

A = group("a", ([1, 2], 0.5), ([1, 2, 3, 4], None))
B = group("b", ([9], 1.0))


def test_every_y_is_a_row_then_every_accepted_refinement():
    y, unscored = A.rollouts
    batch = collate([A, B], [refinement(y, [1, 8, 8], 1.0), refinement(unscored, [4], 2.0, accepted=False)])
    assert len(batch) == 4
    assert batch.is_constraint.tolist() == [False, False, False, True]
    assert batch.origin.tolist() == [0, 1, 2, 0]
    assert batch.group.tolist() == [0, 0, 1, 0]
    assert batch.surrogate.tolist() == [True, False, True, False]
    assert batch.weight.tolist() == [1, 0, 1, 1]
    assert batch.reward.isnan().tolist() == [False, True, False, False]
    assert batch.input_ids[3].tolist() == [5, 6, 7, 1, 8, 8, 0]
    assert batch.targets[3].tolist() == [1, 8, 8, 0]
    assert batch.mask.sum(-1).tolist() == [2, 4, 1, 3]
    assert batch.attention_mask.sum(-1).tolist() == [5, 7, 4, 6]
    assert batch.prompt_lengths.tolist() == [3, 3, 3, 3]


def test_merged_refinements_carry_their_count_and_stay_apart_where_asked():
    first = refinement(A.rollouts[0], [7], 1.0, weight=2)
    second = refinement(A.rollouts[1], [7], 1.0, weight=0)
    merged, apart = collate([A], [first, second]), collate([A], [first, second], merge=False)
    assert merged.weight[merged.is_constraint].tolist() == [2]
    assert apart.weight[apart.is_constraint].tolist() == [1, 1]
    assert apart.origin[apart.is_constraint].tolist() == [0, 1]


def test_dropped_groups_have_no_surrogate():
    batch = collate([group("d", ([1], -1.0), surrogate=False), B])
    assert batch.surrogate.tolist() == [False, True]
    assert batch.weight.tolist() == [1, 1]


def test_a_prompt_that_is_drawn_twice_has_its_own_refinements():
    """Equal responses to one prompt differ in their sample alone."""
    first, second = (replace(A, rollouts=(replace(A.rollouts[0], sample=sample),)) for sample in (0, 1))
    rows = collate([first, second], [refinement(second.rollouts[0], [8], 1.0)])
    assert rows.origin.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="two rollouts of the step are sample 0 of prompt a"):
        collate([first, first])


def test_an_empty_batch_is_a_batch():
    assert len(collate([])) == 0


def test_select_trims_to_the_longest_row():
    every = torch.arange(12.0).reshape(3, 4)
    batch = measured(collate([A, B]), old_logprobs=every).with_advantages(-every).select(torch.tensor([2, 0]))
    assert batch.input_ids.shape == (2, 5)
    assert batch.targets.tolist() == [[9, 0], [1, 2]]
    assert batch.mask.shape == (2, 2)
    assert batch.old_logprobs.tolist() == [[8, 9], [0, 1]]
    assert batch.advantages.tolist() == [[-8, -9], [0, -1]]
    assert batch.returns.isnan().all()
    assert batch.reward.tolist() == [1.0, 0.5]


def test_each_refinement_belongs_to_the_minibatch_of_its_y():
    groups = [group(str(i), ([i + 1], 0.0)) for i in range(7)]
    batch = collate(groups, [refinement(groups[i].rollouts[0], [i, i], 1.0) for i in (0, 3, 5)])
    parts = list(minibatches(batch, 3, seed=1))
    assert [len(p) - int(batch.is_constraint[p].sum()) for p in parts] == [3, 3, 1]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    for part in parts:
        assert set(batch.origin[part].tolist()) <= set(part.tolist())
    assert [p.tolist() for p in minibatches(batch, 3, seed=1)] == [p.tolist() for p in parts]
    assert [p.tolist() for p in minibatches(batch, 3, seed=2)] != [p.tolist() for p in parts]


def test_revived_rollouts_add_no_minibatch_and_keep_their_refinements():
    kept = [group(name, ([i + 1], 0.0), ([i + 2], 1.0)) for i, name in enumerate("abcd")]
    revived = [group(name, ([i + 1], -1.0), surrogate=False) for i, name in enumerate("efghijk")]
    refined = [refinement(g.rollouts[0], [9, 9], 1.0) for g in (*kept, *revived)]
    batch = collate([*kept, *revived], refined, merge=False)
    parts = list(minibatches(batch, 4, seed=1))
    assert [int(batch.surrogate[part].sum()) for part in parts] == [4, 4]
    assert sorted(torch.cat(parts).tolist()) == list(range(len(batch)))
    for part in parts:
        assert set(batch.origin[part].tolist()) <= set(part.tolist())
        assert int(batch.is_constraint[part].sum()) > 0
    (whole,) = minibatches(batch, 8, seed=1)
    assert whole.tolist() == list(range(len(batch)))
    alone = collate(revived)
    assert [len(part) for part in minibatches(alone, 4, seed=1)] == [4, 3]


def test_one_minibatch_keeps_the_order():
    batch = collate([A, B])
    assert [p.tolist() for p in minibatches(batch, 3, seed=5)] == [[0, 1, 2]]


def test_a_prompt_without_a_token_is_refused():
    nothing = prompt("n", ())
    rollouts = (Rollout(nothing, completion([5]), reward(1.0), 0),)
    with pytest.raises(ValueError, match="prompt n must have a token"):
        collate([RolloutGroup(nothing, rollouts)])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 80), st.integers(1, 5))
def test_micro_batches_keep_within_the_budget(lengths, budget, most):
    batch = collate([group(str(i), (range(1, n + 1), 0.0)) for i, n in enumerate(lengths)])
    rows = torch.arange(len(lengths)).flip(0)
    parts = micro_batches(batch, rows, budget, most)
    assert sorted(torch.cat(parts).tolist()) == sorted(rows.tolist())
    for part in parts:
        longest = int(batch.attention_mask[part].sum(-1).max())
        assert len(part) <= most
        assert len(part) == 1 or len(part) * longest <= budget


def test_scattered_rows_land_in_their_place():
    batch = collate([A, B])
    full = scatter_rows(batch, torch.tensor([2, 0]), torch.tensor([[1.0, 0.0], [2.0, 3.0]]))
    assert full.tolist() == [[2, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("size", [2, 3])
def test_minibatches_are_the_same_on_any_number_of_ranks(size):
    groups = [group(name, ([i], 0.0), ([i, i], 1.0), ([i, i, i], 0.5)) for i, name in enumerate("abcdef")]
    refined = [refinement(g.rollouts[1], [9], 2.0) for g in groups]

    def work(world):
        mine = groups[world.rank :: world.size]
        batch = collate(mine, [r for r, g in zip(refined, groups, strict=True) if g in mine], merge=False)
        rows = minibatches(batch, 4, 11, world)
        return [{(int(batch.place[row]), bool(batch.is_constraint[row])) for row in part} for part in rows]

    (alone,) = on_ranks(1, work)
    found = on_ranks(size, work)
    assert len(alone) == 5
    assert [set().union(*parts) for parts in zip(*found, strict=True)] == alone

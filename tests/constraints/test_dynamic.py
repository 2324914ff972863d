"""Costs on ỹ, and where they lie on y, worked out by hand."""

from dataclasses import dataclass

import pytest
import torch

from building import group, refinement
from refinerl.constraints.dynamic import Dynamic
from refinerl.loop.batch import collate
from refinerl.records import Anchors, Outputs

GROUP = group("a", ([10, 11, 12], 0.0), ([20, 21], 0.0))
FIRST, SECOND = GROUP.rollouts
DYNAMIC = Dynamic(beta=1.0)


def carried(refined, costs):
    anchors = Anchors((refinement(FIRST, refined, 1.0),))
    batch = collate([GROUP], anchors.refinements, merge=False)
    cost = torch.zeros(batch.mask.shape)
    cost[2, : len(costs)] = torch.tensor(costs)
    return DYNAMIC.carry(cost, batch, anchors)[0, :3].tolist()


@pytest.mark.parametrize(
    ("refined", "costs", "charges"),
    [
        ([10, 11, 12], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]),  # kept tokens charge their partners
        ([10, 99, 98, 12], [1.0, 2.0, 4.0, 8.0], [1.0, 6.0, 8.0]),  # a substituted run: the first token it replaces
        ([10, 99, 11, 12], [1.0, 2.0, 4.0, 8.0], [1.0, 6.0, 8.0]),  # an insertion: the token before which it stands
        ([10, 11, 12, 99], [1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 12.0]),  # appended: the last token of y
        ([10, 12], [1.0, 2.0], [1.0, 2.0, 0.0]),  # after a deletion the departure is at the first deleted token
    ],
)
def test_costs_are_charged_where_the_departure_is_predicted(refined, costs, charges):
    assert carried(refined, costs) == charges


def test_the_cost_is_the_cross_entropy_of_refinements_alone():
    batch = collate([GROUP], [refinement(SECOND, [20, 30], 1.0)])
    outputs = Outputs(torch.full(batch.mask.shape, -2.0), torch.zeros(batch.mask.shape), torch.tensor(5.0))
    assert DYNAMIC.cost(outputs, batch).sum(-1).tolist() == [0, 0, 4]
    assert DYNAMIC.rows(batch).tolist() == [False, False, True]
    assert DYNAMIC.loss(outputs, batch, torch.ones(3)).item() == 5


def test_merged_rows_cannot_be_carried():
    twins = tuple(refinement(r, [40], 1.0, weight=w) for r, w in ((FIRST, 2), (SECOND, 0)))
    batch = collate([GROUP], twins)
    with pytest.raises(ValueError, match="one row for each of 2"):
        DYNAMIC.carry(torch.zeros(batch.mask.shape), batch, Anchors(twins))


def test_the_refiner_gets_the_constraints_own_filter():
    @dataclass(frozen=True)
    class Asked:
        accept: str
        accept_truncated: bool = False

    constraint = Dynamic(accept="all", accept_truncated=True)
    constraint.connect(Asked("better"))  # type: ignore[arg-type] - only its filter counts here
    assert (constraint.refiner.accept, constraint.refiner.accept_truncated) == ("all", True)

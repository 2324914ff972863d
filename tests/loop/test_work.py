"""The constraint's share of an update, by counting tokens by hand."""

from __future__ import annotations

import pytest

from building import group, measured, refinement
from refinerl.constraints.dynamic import Dynamic
from refinerl.constraints.none import NoConstraint
from refinerl.constraints.static import Static
from refinerl.contracts import ALONE, Constraint, World
from refinerl.loop.batch import collate
from refinerl.loop.work import constraint_share
from threads import on_ranks

A = group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0))  # 3 + 3 and 3 + 2 tokens
REFINED = refinement(A.rollouts[0], [11, 12, 40, 41], 1.0)  # 3 + 4


def share(constraint: Constraint, *, fresh: bool = False, world: World = ALONE, **options: object) -> float:
    batch = measured(collate([A], [REFINED] if isinstance(constraint, Dynamic) else []))
    batch = batch.with_(fresh=batch.surrogate) if fresh else batch
    given = {"epochs": 1, "critic": False, **options}
    return constraint_share(batch, [constraint], world=world, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("constraint", "options", "added", "own"),
    [
        (NoConstraint(), {}, 0, 1),
        (Dynamic(beta=1.0), {}, 3 * 7, 4 * 11),  # old logprobs, then with gradient
        (Dynamic(beta=1.0), {"fresh": True}, 3 * 7, 3 * 11),
        (Dynamic(beta=1.0), {"epochs": 2, "critic": True}, 6 * 7, 7 * 11 + 7 * 11),
        (Dynamic(beta=1.0, apply="reward"), {}, 7, 4 * 11),
        (Dynamic(beta=0.0), {}, 7, 4 * 11),  # watched
        (Static(beta=1.0), {}, 11, 4 * 11),  # the reference
        (Static(beta=1.0), {"fresh": True}, 22, 3 * 11),  # and the penalty, before the update computes the same
        (Static(beta=1.0, apply="loss"), {"fresh": True}, 11, 3 * 11),
    ],
)
def test_tokens_are_counted_as_often_as_they_go_through_a_model(constraint, options, added, own):
    assert share(constraint, **options) == pytest.approx(added / (added + own))


def test_ranks_count_together():
    found = on_ranks(2, lambda world: share(Dynamic(beta=1.0) if world.rank else NoConstraint(), world=world))
    assert found == pytest.approx([3 * 7 / (3 * 7 + 2 * 4 * 11)] * 2)


def test_nothing_to_compute_has_no_share():
    batch = measured(collate([]))
    assert constraint_share(batch, [], epochs=1, critic=False, world=ALONE) == 0

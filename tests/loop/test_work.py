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
    given = {"epochs": 1, "critic": False, "kl": True, "others": 0, **options}
    return constraint_share(batch, [constraint], world=world, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("constraint", "options", "added", "own"),
    [
        (NoConstraint(), {}, 0, 1),
        (Dynamic(beta=1.0), {}, 3 * 7, 5 * 11),  # old and reference logprobs, then with gradient
        (Dynamic(beta=1.0), {"fresh": True}, 3 * 7, 4 * 11),
        (Dynamic(beta=1.0), {"kl": False, "others": 50}, 3 * 7, 4 * 11),
        (Dynamic(beta=1.0), {"others": 50}, 3 * 7, 5 * 11 + 100),
        (Dynamic(beta=1.0), {"epochs": 2, "critic": True}, 6 * 7, 8 * 11 + 7 * 11),
        (Dynamic(beta=1.0, apply="reward"), {}, 7, 5 * 11),
        (Dynamic(beta=0.0), {}, 7, 5 * 11),  # watched
        (Static(beta=1.0), {"fresh": True}, 11, 4 * 11),  # the penalty needs what the update would compute
        (Static(beta=1.0, apply="loss"), {}, 0, 5 * 11),  # the metric needs the reference too
        (Static(beta=1.0, apply="loss"), {"kl": False}, 11, 4 * 11),
    ],
)
def test_tokens_are_counted_as_often_as_they_go_through_a_model(constraint, options, added, own):
    assert share(constraint, **options) == pytest.approx(added / (added + own))


def test_ranks_count_together():
    found = on_ranks(2, lambda world: share(Dynamic(beta=1.0) if world.rank else NoConstraint(), world=world))
    assert found == pytest.approx([3 * 7 / (3 * 7 + 2 * 5 * 11)] * 2)


def test_nothing_to_compute_has_no_share():
    batch = measured(collate([]))
    assert constraint_share(batch, [], epochs=1, critic=False, kl=True, others=0, world=ALONE) == 0

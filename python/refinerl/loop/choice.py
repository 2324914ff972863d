"""The choice of responses to refine, so that refinements teach what the policy gradient alone does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from refinerl.contracts import ALONE, World
from refinerl.records import Rollout, RolloutGroup

Where = Literal["all", "unsolved", "beyond"]


def choose(
    groups: Sequence[RolloutGroup],
    *,
    where: Where = "all",
    budget: float = 1.0,
    max_reward: float | None = None,
    accept_all: bool = False,
    world: World = ALONE,
) -> list[Rollout]:
    """Choose the rollouts to refine, in the order of `groups`.

    Args:
        groups: this rank's groups.
        where: `all`: every y that a refinement can improve. `unsolved`: only those in groups in which no y has the
            highest reward. `beyond`: only those without a better sibling, so that an improvement is better than every
            y of the group.
        budget: largest share of the rollouts of all ranks to refine. If it does not suffice for all, y of dead groups
            come first, then those of unsolved groups, then the others, each in the order in which the step drew them.
        max_reward: the highest possible reward; None if rewards have no upper bound, so that no group is solved.
        accept_all: also choose y that have the highest reward.
        world: the ranks, which share the budget.
    """
    wanted = {
        rollout.key: (_urgency(group, max_reward), group.position, rollout.sample, world.rank)
        for group in groups
        for rollout in group.rollouts
        if rollout.improvable(None if accept_all else max_reward)
        and (where != "unsolved" or _unsolved(group, max_reward))
        and (where != "beyond" or (rollout.reward is not None and rollout.reward.value == group.best))
    }
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if budget < 1:
        parts = world.all_gather_object((len(rollouts), list(wanted.values())))
        affordable = math.floor(budget * sum(count for count, _ in parts) + 1e-9)  # 0.57 · 100 is below 57
        chosen = set(sorted(place for _, places in parts for place in places)[:affordable])
        wanted = {key: place for key, place in wanted.items() if place in chosen}
    return [rollout for rollout in rollouts if rollout.key in wanted]


def dead(group: RolloutGroup, max_reward: float | None) -> bool:
    """Return True if a group's rewards are equal but not the highest, so that its advantages are 0."""
    return len(set(group.rewards)) == 1 and _unsolved(group, max_reward)


def _unsolved(group: RolloutGroup, max_reward: float | None) -> bool:
    return max_reward is None or (group.best is not None and not group.is_solved(max_reward))


def _urgency(group: RolloutGroup, max_reward: float | None) -> int:
    return 0 if dead(group, max_reward) else 1 if _unsolved(group, max_reward) else 2

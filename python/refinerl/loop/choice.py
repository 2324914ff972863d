"""The choice of responses to refine, where a rewrite can teach what the policy gradient does not."""

from __future__ import annotations

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
        where: `all`: every y that a refinement can improve. `unsolved`: only those in groups in which no member has the
            highest reward. `beyond`: only those without a better sibling, so that an improvement is better than every
            y of the group.
        budget: share of the rollouts of all ranks that may be refined. If there are more, dead groups come first, then
            unsolved ones, then the others, each in the order in which the step drew them.
        max_reward: the highest possible reward; None if there is none: then no group is solved.
        accept_all: also refine y that have the highest reward.
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
        affordable = int(budget * sum(count for count, _ in parts))
        chosen = set(sorted(place for _, places in parts for place in places)[:affordable])
        wanted = {key: place for key, place in wanted.items() if place in chosen}
    return [rollout for rollout in rollouts if rollout.key in wanted]


def dead(group: RolloutGroup, max_reward: float | None) -> bool:
    """Tell whether a group has no advantage and could be better: its rewards are equal and not the highest."""
    return len(set(group.rewards)) == 1 and _unsolved(group, max_reward)


def _unsolved(group: RolloutGroup, max_reward: float | None) -> bool:
    return max_reward is None or (group.best is not None and group.best < max_reward)


def _urgency(group: RolloutGroup, max_reward: float | None) -> int:
    return 0 if dead(group, max_reward) else 1 if _unsolved(group, max_reward) else 2

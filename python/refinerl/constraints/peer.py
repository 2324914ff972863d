"""The constraint `peer`, a control of `dynamic`: cross-entropy on the best response to the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from refinerl.constraints.dynamic import Dynamic
from refinerl.loop.drafts import Drafts
from refinerl.records import Anchors, Rollout, RolloutGroup


class Peer(Dynamic):
    """C(θ) = E[ 1{R(x, ỹ) > R(x, y)} · Σ_t −log π_θ(ỹ_t | x, ỹ_<t) ], ỹ = the member of y's group of highest reward.

    Of several such members ỹ is the one with the lowest sample number. Nothing is generated, and ỹ has the reward and
    the tokens that it was sampled with.
    """

    class Options(Dynamic.Options):
        """Peer's options. The members of a group without a signal are equal, so `on_dropped` adds no target."""

        accept: Literal["better", "perfect"] = "better"
        """Siblings that teach: those `better` than y, or of these only `perfect` ones, with the highest reward."""
        accept_truncated: bool = True
        """Let siblings teach that were cut off at generation.max_tokens, too."""

    needs_refiner = False
    makes_refinements = True
    measures_refiner = False

    def anchor(self, groups: Sequence[RolloutGroup], step: int) -> Anchors:
        """Take the best member of each group, filter, align."""
        best = {rollout.key: _best(group) for group in groups for rollout in group.rollouts}

        def write(chosen: Sequence[Rollout]) -> Drafts:
            peers = [best[rollout.key] for rollout in chosen]
            pairs = [(rollout, peer.completion) for rollout, peer in zip(chosen, peers, strict=True)]
            return Drafts(pairs, rewards=[peer.reward for peer in peers])

        return self.refiner.improve(groups, write)


def _best(group: RolloutGroup) -> Rollout:
    return max(group.rollouts, key=lambda r: (float("-inf") if r.reward is None else r.reward.value, -r.sample))

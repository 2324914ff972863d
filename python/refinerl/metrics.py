"""What a step's rollouts tell, by metric name; on task rewards before any shaping, over all that was sampled."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from refinerl.contracts import ALONE, World
from refinerl.records import Anchors
from refinerl.rollout import Collected

IN_EVERY_ROW = (
    "policy/kl_to_reference",
    "policy/entropy",
    "policy/clip_fraction_low",
    "policy/clip_fraction_high",
    "policy/ratio_max",
    "policy/mismatch_kl",
    "policy/mismatch_max",
    "constraint/ce",
    "constraint/cost",
)
"""Metrics of the update that a row has even where a step gives them no value; it is null then."""


def rollout_metrics(collected: Collected, anchors: Anchors, world: World = ALONE) -> dict[str, float]:
    """`reward/*`, `completion/*`, `tokens/step` and how dynamic sampling went; NaN where nothing was scored.

    Over all ranks; the `anchors`' own metrics are so already.
    """
    groups = collected.groups
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    seen: dict[str, Sequence[float]] = {
        "rewards": [reward for group in groups for reward in group.rewards],
        "stds": [statistics.stdev(g.rewards) for g in groups if len(g.rewards) > 1],
        "rates": [r.reward.pass_rate for r in rollouts if r.reward is not None and r.reward.pass_rate is not None],
        "lengths": [len(r.completion.token_ids) for r in rollouts],
        "truncated": [float(r.completion.finish_reason == "length") for r in rollouts],
        "kept": [len(collected.kept)],
        "dropped": [len(collected.dropped)],
    }
    parts = world.all_gather_object(seen)
    every = {name: [value for part in parts for value in part[name]] for name in seen}
    return {
        "reward/mean": _mean(every["rewards"]),
        "reward/group_std": _mean(every["stds"]),
        "reward/pass_rate": _mean(every["rates"]),
        "reward/unscored": float(len(every["lengths"]) - len(every["rewards"])),
        "completion/length": _mean(every["lengths"]),
        "completion/truncated": _mean(every["truncated"]),
        "rollout/groups_kept": float(sum(every["kept"])),
        "rollout/groups_dropped": float(sum(every["dropped"])),
        "rollout/resamples": float(collected.resamples),
        "tokens/step": float(sum(every["lengths"])) + anchors.metrics.get("refiner/tokens", 0.0),
    }


def summed(metrics: Mapping[str, float], world: World) -> dict[str, float]:
    """The sums over ranks, which all have the same names."""
    parts = world.all_gather_object(dict(metrics))
    return {name: sum(part[name] for part in parts) for name in metrics}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else float("nan")

"""Metrics of a step: those of its rollouts, with task rewards before any shaping, and the row of all metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from refinerl.contracts import ALONE, World
from refinerl.loop.rollout import Collected
from refinerl.records import Anchors

IN_EVERY_ROW = (
    "policy/kl_to_reference",
    "policy/entropy",
    "policy/learning_rate",
    "policy/clip_fraction_low",
    "policy/clip_fraction_high",
    "policy/ratio_max",
    "policy/mismatch_kl",
    "policy/mismatch_max",
    "constraint/ce",
    "constraint/cost",
    "constraint/gradient_share",
)
"""Metrics of the update that every row has; null in a step without a value."""


def merged(*parts: Mapping[str, float]) -> dict[str, float]:
    """Merge all parts into one row with every name of `IN_EVERY_ROW`; NaN for what no part measured.

    Raises:
        ValueError: two parts have the same metric.
    """
    row: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name in row:
                raise ValueError(f"{name} was measured twice, as {row[name]:g} and as {value:g}")
            row[name] = value
    return dict.fromkeys(IN_EVERY_ROW, math.nan) | row


def rollout_metrics(collected: Collected, anchors: Anchors, world: World = ALONE) -> dict[str, float]:
    """Compute `reward/*`, `completion/*`, `rollout/*` and `tokens/step`; NaN where nothing was scored.

    Where rewards have parts, `reward/NAME` is the mean of each, over the responses that it applies to; `logged/NAME` is
    the mean of what reward functions log. All metrics are over all ranks; the `anchors`' own metrics are so already.
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
    mine = (
        seen,
        [
            (f"{group}/{name}", value)
            for r in rollouts
            if r.reward is not None
            for group, values in (("reward", r.reward.parts), ("logged", r.reward.logged))
            for name, value in values.items()
        ],
    )
    ranks = world.all_gather_object(mine)
    every = {name: [value for theirs, _ in ranks for value in theirs[name]] for name in seen}
    by_name: dict[str, list[float]] = {}
    for name, value in (part for _, theirs in ranks for part in theirs):
        by_name.setdefault(name, []).extend([] if value is None else [value])
    written = sum(value for name, value in anchors.metrics.items() if name.endswith("/tokens"))
    return {
        **{name: _mean(values) for name, values in by_name.items()},
        "reward/mean": _mean(every["rewards"]),
        "reward/group_std": _mean(every["stds"]),
        "reward/pass_rate": _mean(every["rates"]),
        "reward/unscored": float(len(every["lengths"]) - len(every["rewards"])),
        "completion/length": _mean(every["lengths"]),
        "completion/truncated": _mean(every["truncated"]),
        "rollout/groups_kept": float(sum(every["kept"])),
        "rollout/groups_dropped": float(sum(every["dropped"])),
        "rollout/resamples": float(collected.resamples),
        "tokens/step": float(sum(every["lengths"])) + written,
    }


def summed(metrics: Mapping[str, float], world: World) -> dict[str, float]:
    """Sum metrics over the ranks, which all have the same names."""
    parts = world.all_gather_object(dict(metrics))
    return {name: sum(part[name] for part in parts) for name in metrics}


def why_idle(metrics: Mapping[str, float]) -> str:
    """Explain why a step with these metrics took no optimizer step."""
    if math.isnan(metrics["reward/mean"]):
        return "no response had a reward"
    if not metrics["rollout/groups_kept"]:
        return (
            f"every group's responses had equal rewards (mean {metrics['reward/mean']:g}), so none had an advantage; "
            "raise generation.temperature or algorithm.samples_per_prompt, or choose prompts that the model solves "
            "sometimes"
        )
    return "no row of the batch had a weight in the loss"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else float("nan")

"""Metrics of a run for the page's curves: their sections, their titles, and their values by column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refinerl.tasks.reward_sum import TAKEN

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Reward": {
        "reward/mean": "Mean reward",
        "reward/pass_rate": "Share of tests passed",
        "evaluate/pass@1": "Held-out success (pass@1)",
        "evaluate/reward": "Held-out mean reward",
        "reward/group_std": "Spread of rewards in a group",
    },
    "Constraint": {
        "refiner/improved_ratio": "Improvement ratio",
        "constraint/ce": "Cross-entropy on accepted ỹ, nats per token",
        "refiner/ce": "Cross-entropy on ỹ of the probe, nats per token",
        "refiner/reward_gain": "Reward gain of refinements",
        "refiner/copy_ratio": "Share of ỹ copied from y",
        "constraint/gradient_share": "Constraint’s share of the gradient",
    },
    "Policy": {
        "policy/kl_to_reference": "KL to the reference, nats per token",
        "policy/entropy": "Entropy, nats per token",
        "policy/grad_norm": "Norm of the gradient",
        "policy/clip_fraction_high": "Share of tokens clipped above",
        "completion/length": "Tokens of a response",
        "completion/truncated": "Share of responses cut off",
    },
    "Cost": {
        "time/step": "Seconds per step",
        "time/tokens_per_second": "Tokens per second",
        "memory/host_peak": "Peak of host memory, GiB",
        "memory/device_peak": "Peak of device memory, GiB",
    },
}
"""Metrics with a curve that is always shown: those of the paper's figures 4, 5 and 7, evaluations, health, and cost."""

OTHER = "Other metrics"
NOT_DRAWN = ("schema", "step")


def sections(metrics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sections of curves that some run has values for; the last one holds all other metrics."""
    seen = {name for row in metrics for name, value in row.items() if number(value) is not None}
    seen -= {*NOT_DRAWN, *(name for name in seen if name.endswith(("_low", "_high")) and _whole(name) in seen)}
    found = []
    for title, curves in SECTIONS.items():
        named = dict(curves) | (_parts(seen) if title == "Reward" else {})
        found.append((title, {name: label for name, label in named.items() if name in seen}))
    left = sorted(seen - {name for _, curves in found for name in curves})
    found.append((OTHER, {name: name for name in left}))
    return [
        {"title": title, "curves": [{"name": n, "title": label} for n, label in curves.items()]}
        for title, curves in found
        if curves
    ]


def columns(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return the metrics of a run by name, each with a value or None for every row."""
    names = sorted({name for row in metrics for name in row} - set(NOT_DRAWN))
    return {name: [number(row.get(name)) for row in metrics] for name in names}


def thinned(metrics: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Choose at most about `most` rows, evenly, with those of evaluations if they are few; return their places.

    >>> thinned([{}, {}, {"evaluate/reward": 1.0}, {}, {}, {}, {}], 3)
    [0, 2, 3, 6]
    """
    count = len(metrics)
    if count <= most:
        return list(range(count))
    evaluated = [i for i, row in enumerate(metrics) if any(name.startswith("evaluate/") for name in row)]
    even = {round(i * (count - 1) / (most - 1)) for i in range(most)}
    return sorted(even | set(evaluated if len(evaluated) <= most else []))


def sums(metrics: Sequence[Mapping[str, Any]], name: str) -> list[float] | None:
    """Return the running sum of a metric over the rows, 0 for those of no step; None if no row has it.

    >>> sums([{"a": 1.0}, {}, {"a": 2.0}], "a")
    [1.0, 1.0, 3.0]
    """
    values = [number(row.get(name)) for row in metrics]
    if all(value is None for value in values):
        return None
    total, found = 0.0, []
    for value in values:
        total += value or 0.0
        found.append(total)
    return found


def number(value: Any) -> float | None:
    """Return a finite number as it is, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _whole(name: str) -> str:
    return name.removesuffix("_low").removesuffix("_high")


def _parts(names: set[str]) -> dict[str, str]:
    """Return the metrics of the rewards that are added up, with their titles."""
    places = {"reward": "Mean of the reward", "evaluate/reward": "Held-out mean of the reward"}
    parts = {name: name.rpartition("/") for name in sorted(names)}
    return {name: f"{places[of]} {part}" for name, (of, _, part) in parts.items() if of in places and part not in TAKEN}

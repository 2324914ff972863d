"""A run in words: whether its reward rose, what the refiner did, and what a step costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refinerl.report.metrics import training
from refinerl.report.page.curves import number
from refinerl.report.summary import held_out
from refinerl.report.windows import LEAST, Mean, Window, windows

PHASES = ("generate", "score", "refine", "update", "sync", "evaluate")


@dataclass(frozen=True)
class Verdict:
    """A run in words."""

    headline: str
    sentences: tuple[str, ...]


def verdict(metrics: Sequence[Mapping[str, Any]], *, improved: int = 0, probed: bool = False) -> Verdict:
    """Describe a run from its rows of metrics.jsonl.

    Args:
        metrics: all rows.
        improved: number of responses whose refinement has a higher reward.
        probed: True if the refinements were probes, which teach nothing.
    """
    rows = training(metrics)
    if not rows:
        return Verdict("No step is finished yet.", ())
    parts = windows(rows)
    found = [
        *held_out(metrics),
        _changed(parts, "policy/kl_to_reference", "The KL to the reference", " nats per token", "went"),
        _changed(parts, "refiner/improved_ratio", "The improvement ratio", "", "went"),
        _changed(parts, "constraint/ce", "The cross-entropy on accepted ỹ", " nats per token", "went"),
        _price(rows, improved, probed),
        _cost(rows),
    ]
    return Verdict(_headline(parts), tuple(sentence for sentence in found if sentence))


def _headline(parts: Sequence[Window]) -> str:
    means = [part.mean("reward/mean") for part in parts]
    if len(parts) < 2:
        count = len(parts[0].rows)
        few = f"Too few steps to tell a change: {count}, and it takes two windows of {LEAST}."
        return few if means[0] is None else f"{few} The mean reward is {means[0].value:.3g}."
    first, last = means
    if first is None or last is None:
        return "The rewards of the first or of the last steps are missing."
    change = last.value - first.value
    error = math.hypot(first.error or 0.0, last.error or 0.0)
    told = f"from {_mean(first)} in {parts[0].label} to {_mean(last)} in {parts[-1].label}"
    if abs(change) <= 2 * error:
        return f"The mean reward shows no change that stands out from its noise: {told}."
    return f"The mean reward {'rose' if change > 0 else 'fell'} {told}."


def _changed(parts: Sequence[Window], name: str, what: str, unit: str, verb: str) -> str:
    means = [mean for mean in (part.mean(name) for part in parts) if mean is not None]
    if not means:
        return ""
    if len(means) < 2:
        return f"{what} is {_mean(means[0])}{unit}."
    return f"{what} {verb} from {_mean(means[0])} to {_mean(means[1])}{unit}."


def _price(rows: Sequence[Mapping[str, Any]], improved: int, probed: bool) -> str:
    tokens = sum(number(row.get("refiner/tokens")) or 0 for row in rows)
    if not tokens:
        return ""
    taught = " It was a probe: none of this taught the policy." if probed else ""
    if not improved:
        return f"The refiner wrote {tokens:,.0f} tokens and improved no response.{taught}"
    responses = "response" if improved == 1 else "responses"
    return (
        f"The refiner wrote {tokens:,.0f} tokens and improved {improved:,} {responses}, "
        f"{tokens / improved:,.0f} tokens for each.{taught}"
    )


def _cost(rows: Sequence[Mapping[str, Any]]) -> str:
    whole = Window(rows).mean("time/step")
    if whole is None or not whole.value:
        return ""
    seconds = {name: math.fsum(number(row.get(f"time/{name}")) or 0.0 for row in rows) for name in ("step", *PHASES)}
    shares = {phase: seconds[phase] / seconds["step"] for phase in PHASES}
    largest = sorted((item for item in shares.items() if item[1] >= 0.01), key=lambda item: -item[1])[:4]
    spent = ", ".join(f"{share:.0%} {phase}" for phase, share in largest)
    return f"A step takes {whole.value:.3g} s{f': {spent}' if spent else ''}."


def _mean(mean: Mean) -> str:
    """Write a mean with its standard error, to as many digits as that error allows.

    >>> _mean(Mean(0.41237, 0.0312)), _mean(Mean(0.5, None)), _mean(Mean(-1.0, 0.0))
    ('0.412 ± 0.031', '0.5', '−1')
    """
    if mean.error is None or mean.error <= abs(mean.value) / 1000:
        text = f"{mean.value:.3g}"
    else:
        digits = max(0, 1 - math.floor(math.log10(mean.error)))
        text = f"{mean.value:.{digits}f} ± {mean.error:.{digits}f}"
    return text.replace("-", "−") if text.startswith("-") else text

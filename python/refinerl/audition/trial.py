"""An audition's numbers: what a refiner makes of a set of answers, what fresh answers make of it, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from refinerl.loop.refiner import Refiner
from refinerl.loop.rollout import Roller
from refinerl.records import Completion, Refinement, Reward, Rollout, RolloutGroup, sample_seed
from refinerl.report import summary

STEP = 1
"""An audition is one step of a run that goes no further."""


@dataclass(frozen=True)
class Column:
    """What one way of correcting did with the answers.

    Attributes:
        rollouts: answers y that have a reward.
        corrected: of those, the answers that got at least one correction.
        improved: for each y, did a correction earn strictly more.
        kept: for each y, the reward gained by its best correction, 0 where none is better.
        change: mean of R(correction) − R(y) over corrections, better or not; NaN without any.
        copied: mean share of a correction's tokens that stand in y; NaN for fresh answers.
        written, read: tokens of the corrections and of what they were asked with.
    """

    name: str
    rollouts: int
    corrected: int
    improved: tuple[bool, ...]
    kept: tuple[float, ...]
    change: float
    copied: float
    written: int
    read: int
    mean_reward: float
    examples: tuple[dict[str, Any], ...] = field(repr=False)
    """As rows of rollouts/, the most telling first."""
    decode: Any = field(repr=False, default=None)

    @property
    def improvement_ratio(self) -> float:
        """Share of all y with R(ỹ) > R(y)."""
        return sum(self.improved) / max(self.rollouts, 1)

    @property
    def gain(self) -> float:
        """Reward gained per y where only better corrections count, as the filter has it."""
        return sum(self.kept) / max(self.rollouts, 1)

    @property
    def per_thousand(self) -> float:
        """Improved y for 1,000 tokens written."""
        return 1000 * sum(self.improved) / self.written if self.written else math.nan

    def as_json(self) -> dict[str, Any]:
        """Everything, with null for what has no value."""
        values = asdict(replace(self, decode=None)) | {
            "improvement_ratio": self.improvement_ratio,
            "gain": self.gain,
            "improved_per_1000_tokens": self.per_thousand,
        }
        del values["decode"]
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def refined(name: str, refiner: Refiner, groups: Sequence[RolloutGroup]) -> Column:
    """The refiner's rewrites."""
    anchors = refiner.refine(groups, STEP)
    made = [r for r in anchors.refinements if r.reward is not None]
    found = {id(r.rollout): _gain(r.rollout, r.reward) for r in made}
    asked = [refiner.encode_chat(refiner.task.refine_prompt(r.rollout)) for r in anchors.refinements]
    copied = [r.alignment.copy_ratio for r in made]
    return _column(
        name,
        groups,
        found,
        changes=list(found.values()),
        copied=sum(copied) / len(copied) if copied else math.nan,
        written=int(anchors.metrics["refiner/tokens"]),
        read=sum(map(len, asked)),
        examples=tuple(_example(r) for r in sorted(made, key=_merit, reverse=True)),
        decode=refiner.decode,
    )


def fresh(roller: Roller, groups: Sequence[RolloutGroup], rival: Column) -> Column:
    """New answers to the questions whose y can be improved, round by round, until `rival.written` tokens are spent.

    A y's best fresh answer counts. The answer that would cross the budget and those after it do not.
    """
    task, spent, read = roller.task, 0, 0
    best: dict[int, float] = {}
    changes: list[float] = []
    open_to_better = [r for group in groups for r in group.rollouts if _improvable(r, task.max_reward)]
    round_, more = 0, bool(open_to_better)
    while more:
        seeds = [[_seed(roller, rollout, round_)] for rollout in open_to_better]
        with roller.clock("fresh answers", len(open_to_better) * roller.sampling.max_tokens):
            written = roller.generator.generate(
                [r.prompt.token_ids for r in open_to_better], replace(roller.sampling, n=1, seeds=seeds)
            )
        affordable: list[tuple[Rollout, Completion]] = []
        for rollout, (answer,) in zip(open_to_better, written, strict=True):
            if spent + len(answer.token_ids) > rival.written:
                break
            spent += len(answer.token_ids)
            read += len(rollout.prompt.token_ids)
            affordable.append((rollout, answer))
        rewards = task.score([r.prompt for r, _ in affordable], [answer for _, answer in affordable])
        for (rollout, _), reward in zip(affordable, rewards, strict=True):
            if reward is not None:
                gain = _gain(rollout, reward)
                changes.append(gain)
                best[id(rollout)] = max(gain, best.get(id(rollout), -math.inf))
        round_ += 1
        more = len(affordable) == len(open_to_better) and any(answer.token_ids for _, answer in affordable)
    return _column("fresh answers", groups, best, changes=changes, copied=math.nan, written=spent, read=read)


def show(columns: Sequence[Column], console: Console, examples: int) -> None:
    """Prints the table, examples of each refiner, and whether the first one beats the control, which is the last."""
    first, control = columns[0], columns[-1]
    for column in columns[:-1]:
        for row in column.examples[:examples]:
            title = escape(f"{column.name}: prompt {row['prompt']['id']}")
            console.print(summary.example(row, column.decode, title=title, plain=not console.is_terminal))
    table = Table(
        title=f"{first.rollouts} answers, mean reward {first.mean_reward:.3f}", title_justify="left", box=None
    )
    table.add_column("")
    for column in columns:
        table.add_column(escape(column.name), justify="right")
    lines = {
        "answers corrected": [f"{c.corrected}" for c in columns],
        "improvement ratio": [f"{c.improvement_ratio:.1%}" for c in columns],
        "reward gain per answer, filtered": [f"{c.gain:+.4f}" for c in columns],
        "reward change per correction": [_form(c.change, "+.4f") for c in columns],
        "copy ratio": [_form(c.copied, ".1%") for c in columns],
        "tokens written": [f"{c.written:,}" for c in columns],
        "tokens read": [f"{c.read:,}" for c in columns],
        "improved per 1,000 tokens written": [_form(c.per_thousand, ".2f") for c in columns],
    }
    for label, cells in lines.items():
        table.add_row(label, *cells)
    console.print(table)
    for column in columns[:-1]:
        console.print(escape(verdict(column, control)), soft_wrap=True, highlight=False)


def verdict(column: Column, control: Column) -> str:
    """Does a refiner beat fresh answers: the difference of the improvement ratios, paired by y, with its error."""
    pairs = [float(a) - float(b) for a, b in zip(column.improved, control.improved, strict=True)]
    if not any(column.improved) and not any(control.improved):
        return f"{column.name}: nothing was improved, by fresh answers neither; try an easier task or a larger --n"
    mean = sum(pairs) / len(pairs)
    error = math.sqrt(sum((p - mean) ** 2 for p in pairs) / max(len(pairs) - 1, 1) / len(pairs))
    words = "beats fresh answers" if mean > 0 else "does not beat fresh answers: not worth its price"
    if abs(mean) < 2 * error or len(pairs) < 2:
        words = "no clear difference to fresh answers; a larger --n would tell"
    return f"{column.name}: {words} (improvement ratio {100 * mean:+.1f} ± {100 * error:.1f} points)"


def _column(
    name: str,
    groups: Sequence[RolloutGroup],
    best: dict[int, float],
    *,
    changes: Sequence[float],
    examples: tuple[dict[str, Any], ...] = (),
    **values: Any,
) -> Column:
    scored = [r for group in groups for r in group.rollouts if r.reward is not None]
    gains = [best.get(id(r), 0.0) for r in scored]
    return Column(
        name=name,
        rollouts=len(scored),
        corrected=len(best),
        improved=tuple(gain > 0 for gain in gains),
        kept=tuple(max(gain, 0.0) for gain in gains),
        change=sum(changes) / len(changes) if changes else math.nan,
        mean_reward=sum(_value(r.reward) for r in scored) / len(scored) if scored else math.nan,
        examples=examples,
        **values,
    )


def _improvable(rollout: Rollout, max_reward: float | None) -> bool:
    return rollout.reward is not None and (max_reward is None or rollout.reward.value < max_reward)


def _seed(roller: Roller, rollout: Rollout, round_: int) -> int:
    return sample_seed(roller.seed, STEP, f"fresh/{round_}/{rollout.prompt.id}", rollout.sample)


def _value(reward: Reward | None) -> float:
    return math.nan if reward is None else reward.value


def _gain(rollout: Rollout, reward: Reward | None) -> float:
    return _value(reward) - _value(rollout.reward)


def _merit(refinement: Refinement) -> tuple[bool, float, float]:
    gain = _gain(refinement.rollout, refinement.reward)
    return refinement.accepted, gain, refinement.alignment.copy_ratio


def _example(refinement: Refinement) -> dict[str, Any]:
    rollout = refinement.rollout
    return {
        "step": STEP,
        "prompt": {"id": rollout.prompt.id, "text": rollout.prompt.text},
        "completion": {"text": rollout.completion.text, "token_ids": list(rollout.completion.token_ids)},
        "reward": asdict(rollout.reward) if rollout.reward else None,
        "refinement": {
            "completion": {"text": refinement.completion.text, "token_ids": list(refinement.completion.token_ids)},
            "reward": asdict(refinement.reward) if refinement.reward else None,
            "accepted": refinement.accepted,
            "copy_ratio": refinement.alignment.copy_ratio,
        },
    }


def _form(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)

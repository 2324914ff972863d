"""Measurements of an audition: refiners on a set of answers, compared with siblings and fresh answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from refinerl.audition.judgement import compare, standard_error
from refinerl.data.terminal import safe
from refinerl.loop.refiner import Refiner
from refinerl.loop.rollout import Roller
from refinerl.records import Completion, Reward, Rollout, RolloutGroup, sample_seed
from refinerl.report import summary
from refinerl.report.rows import RolloutRow, rollout_row

STEP = 1
"""The step number for seeds: an audition samples as the first step of a run does."""


@dataclass(frozen=True)
class Column:
    """The results of one method of correcting answers: of a refiner, of siblings or of fresh answers.

    Attributes:
        rollouts: number of answers y that have a reward.
        corrected: number of those that have at least one correction.
        improved: for each y, True if a correction has a strictly higher reward.
        beyond: for each y, True if a correction has a strictly higher reward than the best answer to the same question.
        kept: for each y, the reward gained by its best correction; 0 if none is better.
        change: mean of R(correction) − R(y) over all corrections, better or not; NaN if there are none.
        copied: mean share of a correction's tokens that are copied from y; NaN for siblings and fresh answers.
        written: number of tokens generated for corrections.
        read: number of tokens in the prompts for corrections.
        too_long: number of y that were not corrected because the refiner's prompt, or ỹ, does not fit a context.
        mean_reward: mean of R(y).
        groups: for each y, the number of its question.
        examples: the corrections, best first.
        decode: converts token ids to text.
    """

    name: str
    rollouts: int
    corrected: int
    improved: tuple[bool, ...]
    beyond: tuple[bool, ...]
    kept: tuple[float, ...]
    change: float
    copied: float
    written: int
    read: int
    mean_reward: float
    groups: tuple[int, ...]
    examples: tuple[RolloutRow, ...] = field(repr=False)
    too_long: int = 0
    decode: Any = field(repr=False, default=None)

    @property
    def improvement_ratio(self) -> float:
        """Share of all y with R(ỹ) > R(y)."""
        return sum(self.improved) / max(self.rollouts, 1)

    @property
    def gain(self) -> float:
        """Mean reward gained per y if only better corrections count, as in training."""
        return sum(self.kept) / max(self.rollouts, 1)

    @property
    def improvement_error(self) -> float:
        """Standard error of the improvement ratio, clustered by question; NaN for fewer than two questions."""
        return standard_error([float(each) for each in self.improved], self.groups)

    @property
    def gain_error(self) -> float:
        """Standard error of the gain, clustered by question; NaN for fewer than two questions."""
        return standard_error(self.kept, self.groups)

    @property
    def per_thousand(self) -> float:
        """Number of improved y per 1,000 generated tokens."""
        return 1000 * sum(self.improved) / self.written if self.written else math.nan

    def as_json(self) -> dict[str, Any]:
        """Return all results except `decode`, with None for NaN."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decode"} | {
            "examples": [example.as_json() for example in self.examples],
            "improvement_ratio": self.improvement_ratio,
            "improvement_error": self.improvement_error,
            "gain": self.gain,
            "gain_error": self.gain_error,
            "improved_per_1000_tokens": self.per_thousand,
        }
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def refined(name: str, refiner: Refiner, groups: Sequence[RolloutGroup]) -> Column:
    """Measure a refiner on the answers. A better ỹ that the filter drops (cut off, hard-coded) counts as no gain."""
    anchors = refiner.refine(groups, STEP)
    made = [r for r in anchors.refinements if r.reward is not None]
    gains = [_gain(r.rollout, r.reward) for r in made]
    left_out = [gain > 0 and not r.accepted and refiner.accept == "better" for r, gain in zip(made, gains, strict=True)]
    found = {r.rollout.key: 0.0 if out else gain for r, gain, out in zip(made, gains, left_out, strict=True)}
    copied = [r.alignment.copy_ratio for r in made]
    examples = [rollout_row(STEP, r.rollout, r, selected=True) for r in made]
    return _column(
        name,
        groups,
        found,
        changes=gains,
        copied=sum(copied) / len(copied) if copied else math.nan,
        written=int(anchors.metrics["refiner/tokens"]),
        read=int(anchors.metrics["refiner/tokens_read"]),
        too_long=int(anchors.metrics["refiner/skipped_too_long"]),
        examples=tuple(sorted(examples, key=summary.merit, reverse=True)),
        decode=refiner.decode,
    )


def siblings(groups: Sequence[RolloutGroup]) -> Column:
    """Measure the best other answer to the same question, which is free: group advantages already favour it."""
    best: dict[tuple[str, int], float] = {}
    for group in groups:
        for rollout in group.rollouts:
            others = [r.reward.value for r in group.rollouts if r.key != rollout.key and r.reward is not None]
            if rollout.reward is not None and others:
                best[rollout.key] = max(others) - rollout.reward.value
    return _column("best sibling", groups, best, changes=list(best.values()), copied=math.nan, written=0, read=0)


def fresh(roller: Roller, groups: Sequence[RolloutGroup], rival: Column) -> Column:
    """Sample new answers to the questions whose y can be improved, in rounds, with a budget of `rival.written` tokens.

    The best fresh answer for each y counts. The answer that would exceed the budget, and those after it, do not count.
    """
    task, spent, read = roller.task, 0, 0
    best: dict[tuple[str, int], float] = {}
    changes: list[float] = []
    open_to_better = [r for group in groups for r in group.rollouts if r.improvable(task.max_reward)]
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
                best[rollout.key] = max(gain, best.get(rollout.key, -math.inf))
        round_ += 1
        more = len(affordable) == len(open_to_better) and any(answer.token_ids for _, answer in affordable)
    return _column("fresh answers", groups, best, changes=changes, copied=math.nan, written=spent, read=read)


def show(columns: Sequence[Column], console: Console, examples: int) -> None:
    """Print examples for each refiner, the table, and verdicts against the control, which is the last column."""
    first, control = columns[0], columns[-1]
    for column in columns[:-1]:
        for row in column.examples[:examples]:
            title = escape(safe(f"{column.name}: prompt {row.prompt.id}"))
            console.print(summary.example(row, column.decode, title=title, plain=not console.is_terminal))
    table = Table(
        title=f"{first.rollouts} answers, mean reward {first.mean_reward:.3f}", title_justify="left", box=None
    )
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(escape(column.name), justify="right")
    lines = {
        "answers corrected": [f"{c.corrected}" for c in columns],
        "  too long for the context": [f"{c.too_long}" for c in columns],
        "improvement ratio": [f"{c.improvement_ratio:.1%}" for c in columns],
        "  standard error": [_form(c.improvement_error, ".1%") for c in columns],
        "better than all siblings": [f"{sum(c.beyond) / max(c.rollouts, 1):.1%}" for c in columns],
        "reward gain per answer, filtered": [f"{c.gain:+.4f}" for c in columns],
        "  its standard error": [_form(c.gain_error, ".4f") for c in columns],
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
    """Return the verdict on whether a method beats the control; none if it could not read or write its corrections."""
    if column.too_long and not column.corrected:
        return f"{column.name}: no verdict, for none of its {column.too_long} prompts and corrections fits the context"
    return compare(
        column.name,
        column.improved,
        control.name,
        control.improved,
        column.groups,
        price=": not worth its price" if column.written else "",
    )


def _column(
    name: str,
    groups: Sequence[RolloutGroup],
    best: dict[tuple[str, int], float],
    *,
    changes: Sequence[float],
    examples: tuple[RolloutRow, ...] = (),
    **values: Any,
) -> Column:
    scored = [r for group in groups for r in group.rollouts if r.reward is not None]
    gains = [best.get(r.key, 0.0) for r in scored]
    number = {r.key: i for i, group in enumerate(groups) for r in group.rollouts}
    top = [groups[number[r.key]].best for r in scored]
    return Column(
        name=name,
        rollouts=len(scored),
        corrected=len(best),
        improved=tuple(gain > 0 for gain in gains),
        beyond=tuple(
            gain > 0 and most is not None and _value(r.reward) + gain > most + 1e-9
            for r, gain, most in zip(scored, gains, top, strict=True)
        ),
        kept=tuple(max(gain, 0.0) for gain in gains),
        change=sum(changes) / len(changes) if changes else math.nan,
        mean_reward=sum(_value(r.reward) for r in scored) / len(scored) if scored else math.nan,
        groups=tuple(number[r.key] for r in scored),
        examples=examples,
        **values,
    )


def _seed(roller: Roller, rollout: Rollout, round_: int) -> int:
    return sample_seed(roller.seed, STEP, f"fresh/{round_}/{rollout.prompt.id}", rollout.sample)


def _value(reward: Reward | None) -> float:
    return math.nan if reward is None else reward.value


def _gain(rollout: Rollout, reward: Reward | None) -> float:
    return _value(reward) - _value(rollout.reward)


def _form(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)

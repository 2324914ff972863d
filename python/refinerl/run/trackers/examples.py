"""Responses of a step as trackers show them: bounded text without characters that a display would obey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from refinerl.data.terminal import safe
from refinerl.report.rows import RolloutRow

LONGEST = 8000
"""Characters of a text that trackers get; the run's folder has all of it."""
SHARE = 100
"""Number of times that a run sends responses by default."""


@dataclass(frozen=True)
class Example:
    """A response y with its refinement ỹ, which is None where there is none."""

    step: int
    prompt_id: str
    sample: int
    question: str
    y: str
    refined: str | None
    reward: float | None
    refined_reward: float | None
    outcome: str | None
    """Outcome of y, such as `wrong_answer`; None where the task has none."""
    accepted: bool
    """True if the filter accepted ỹ."""

    def cells(self) -> list[Any]:
        """Return the values of a table's row, in the order of `COLUMNS`."""
        return [getattr(self, name) for name in COLUMNS]


COLUMNS = tuple(field.name for field in fields(Example))


def example(row: RolloutRow) -> Example:
    """Make an example of a rollout's row; a probe's refinement takes the place of a missing one."""
    row = row.as_probe()
    refinement = row.refinement
    refined_reward = None if refinement is None or refinement.reward is None else refinement.reward.value
    return Example(
        step=row.step,
        prompt_id=shown(row.prompt.id),
        sample=row.sample,
        question=shown(row.prompt.text),
        y=shown(row.completion.text),
        refined=None if refinement is None else shown(refinement.completion.text),
        reward=None if row.reward is None else row.reward.value,
        refined_reward=refined_reward,
        outcome=None if row.reward is None else row.reward.outcome,
        accepted=refinement is not None and refinement.accepted,
    )


def shown(text: str) -> str:
    r"""Bound a text, and escape what is neither printable nor a line break or a tab.

    >>> shown("one\n\ttwo\x07 \udc80")
    'one\n\ttwo\\x07 \\udc80'
    """
    cut = text[:LONGEST]
    rest = len(text) - len(cut)
    escaped = "\t".join(map(safe, cut.split("\t")))
    return f"{escaped}\n… {rest:,} more characters" if rest else escaped


def markdown(examples: Sequence[Example]) -> str:
    """Write examples as Markdown, each text as an indented block, whose characters have no meaning."""
    parts = []
    for one in examples:
        rewards = f"reward {_number(one.reward)}" + (f", {one.outcome}" if one.outcome else "")
        parts.append(f"**step {one.step}, sample {one.sample}**: {rewards}\n\n" + _block(one.question))
        parts.append("y:\n\n" + _block(one.y))
        if one.refined is not None:
            accepted = "accepted" if one.accepted else "not accepted"
            told = f"ỹ: reward {_number(one.refined_reward)}, {accepted}\n\n"
            parts.append(told + _block(one.refined))
    return "\n\n".join(parts)


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def due(step: int, steps: int, every: int) -> bool:
    """Return True if the responses of a step are sent; `every` = 0 spreads `SHARE` steps over a run.

    >>> [step for step in range(1, 251) if due(step, 250, 0)][:3], due(250, 250, 0), due(1, 2, 0)
    ([3, 6, 9], True, True)
    """
    period = every or -(-steps // SHARE)
    return step > 0 and (step % period == 0 or step == steps)

"""The refinement of a run that shows best where the constraint bites."""

from __future__ import annotations

from pathlib import Path

from refinerl.alignment import align
from refinerl.records import Reward
from refinerl.report.figures.heat_map import Example, Token, lay_out
from refinerl.report.rows import RefinementRow, RolloutRow, read_rollouts
from refinerl.report.summary import merit


def best(run: Path) -> Example | None:
    """Return the accepted refinement with the largest gain of those whose tokens' logprobs are known; None without any.

    Of equal gains one that fits on the picture is preferred, and one that copies more.

    Raises:
        UserError: a file of the run is damaged.
    """
    if not any((run / "rollouts").glob("step-*.jsonl")):
        return None
    rows = (row.as_probe() for row in read_rollouts(run))
    found = max((row for row in rows if _known(row.refinement)), key=_worth, default=None)
    return None if found is None or found.refinement is None else _example(run, found, found.refinement)


def _known(refinement: RefinementRow | None) -> bool:
    return refinement is not None and refinement.accepted and bool(refinement.completion.logprobs)


def _worth(row: RolloutRow) -> tuple[float, bool, float]:
    _, gain, copied = merit(row)
    fits = all(lay_out([text])[1] == 1 for text in (row.completion.text, _refined(row)))
    return gain, fits, copied


def _refined(row: RolloutRow) -> str:
    return "" if row.refinement is None else row.refinement.completion.text


def _example(run: Path, row: RolloutRow, refinement: RefinementRow) -> Example:
    y, refined = row.completion, refinement.completion
    (alignment,) = align([y.token_ids], [refined.token_ids])
    costs = (0.0 if value is None else -value for value in refined.logprobs)
    return Example(
        title=f"{run.name}, step {row.step}, prompt {row.prompt.id}, sample {row.sample}",
        question=row.prompt.text,
        response=tuple(Token(text, bool(kept)) for text, kept in zip(y.pieces, alignment.original_kept, strict=True)),
        refined=tuple(
            Token(text, bool(kept), cost)
            for text, kept, cost in zip(refined.pieces, alignment.refined_kept, costs, strict=True)
        ),
        verdicts=(_verdict(row.reward), _verdict(refinement.reward)),
    )


def _verdict(reward: Reward | None) -> str:
    return "no reward" if reward is None else f"reward {reward.value:+.2f} ({reward.outcome})"

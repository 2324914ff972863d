"""The refinement of a run that shows best where the constraint bites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from refinerl.alignment import align
from refinerl.records import Reward
from refinerl.report.figures.heat_map import Example, Token, lay_out
from refinerl.report.reading import read_rollouts
from refinerl.report.rows import RolloutRow


def best(run: Path, name: str = "") -> Example | None:
    """Return the accepted refinement with the largest gain of those whose tokens' logprobs are known; None without any.

    Of equal gains one that fits on the picture is preferred, then the one whose first new token costs most.

    Args:
        run: the run's folder.
        name: the run's name in the title; empty: its folder's.

    Raises:
        UserError: a file of the run is damaged.
    """
    if not any((run / "rollouts").glob("step-*.jsonl")):
        return None
    rows = (row.as_probe() for row in read_rollouts(run))
    found = max((each for row in rows for each in _examples(row, name or run.name)), key=itemgetter(0), default=None)
    return None if found is None else found[1]


def _examples(row: RolloutRow, name: str) -> Iterator[tuple[tuple[float, bool, float], Example]]:
    """Yield a rollout as an example, with what it is worth, if its refinement was accepted and its costs are known."""
    refinement = row.refinement
    if refinement is None or not refinement.accepted or row.gain is None:
        return
    y, refined = row.completion, refinement.completion
    if not (len(refined.logprobs) == len(refined.pieces) == len(refined.token_ids)):
        return
    if len(y.pieces) != len(y.token_ids) or not refined.pieces:
        return
    (alignment,) = align([y.token_ids], [refined.token_ids])
    made = Example(
        title=f"{name}, step {row.step}, prompt {row.prompt.id}, sample {row.sample}",
        question=row.prompt.text,
        response=tuple(map(Token, y.pieces, alignment.original_kept.tolist())),
        refined=tuple(map(Token, refined.pieces, alignment.refined_kept.tolist(), map(_cost, refined.logprobs))),
        verdicts=(_verdict(row.reward), _verdict(refinement.reward)),
    )
    fits = all(lay_out([text])[1] for text in (y.text, refined.text))
    yield (row.gain, fits, next((token.ce for token in made.refined if not token.kept), -1.0)), made


def _cost(logprob: float | None) -> float:
    return 0.0 if logprob is None or not math.isfinite(logprob) else 0.0 - logprob


def _verdict(reward: Reward | None) -> str:
    return "no reward" if reward is None else f"reward {reward.value:+.2f} ({reward.outcome})"

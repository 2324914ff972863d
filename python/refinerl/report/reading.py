"""The files of rollouts/, read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from refinerl.errors import UserError
from refinerl.records import Reward
from refinerl.report.rows import CompletionRow, PromptRow, RefinementRow, RolloutRow
from refinerl.report.schema import OLDER, ROLLOUTS, lines

T = TypeVar("T")


def read_step(run: Path, step: int) -> list[RolloutRow]:
    """Read the rollouts of one step, in the order of its prompts.

    Raises:
        UserError: the run has no such step, a line is damaged, or another version of refinerl wrote it.
    """
    files = step_files(run)
    if step not in files:
        known = f"it has {min(files)} to {max(files)}" if files else "it has none yet"
        raise UserError(f"{run} has no rollouts of step {step}: {known}")
    return list(_read(files[step]))


def read_rollouts(run: Path) -> Iterator[RolloutRow]:
    """Read the rollouts of all steps of a run, in order.

    Raises:
        UserError: the folder is not a run's, no step is finished, a line is damaged, or another version of refinerl
            wrote it.
    """
    if not (run / "config.yaml").is_file() or not (run / "rollouts").is_dir():
        raise UserError(f"{run} is not the folder of a run: it lacks config.yaml or rollouts/")
    files = step_files(run)
    if not files:
        raise UserError(f"{run}: no step is finished yet, rollouts/ is empty")
    for step in sorted(files):
        yield from _read(files[step])


_STEP = re.compile(r"step-(\d+)\.jsonl")


def step_files(run: Path) -> dict[int, Path]:
    """Return the files of rollouts/ by step; {} where there are none."""
    folder = run / "rollouts"
    named = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return {int(match[1]): path for match, path in named if match}


def _read(path: Path) -> Iterator[RolloutRow]:
    for where, row in lines(path, (OLDER, ROLLOUTS)):
        yield from_json(where, row)


def from_json(where: str, row: Mapping[str, Any]) -> RolloutRow:
    """Make a rollout's row of a line of `rollouts/step-N.jsonl`.

    Raises:
        UserError: it is not a rollout; the message begins with `where`.
    """
    try:
        return _rollout_row(row)
    except KeyError as error:
        raise UserError(f"{where} is not a rollout: the field {error} is missing") from error
    except (AttributeError, TypeError) as error:
        raise UserError(f"{where} is not a rollout: a field has the wrong type") from error


def _typed(value: Any, kind: type[T]) -> T:
    """Return a value of a row if it has this type; an integer is a float, too."""
    if kind is float and type(value) is int:
        return value  # type: ignore[return-value]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise TypeError
    return value


def _rollout_row(row: Mapping[str, Any]) -> RolloutRow:
    prompt, advantage = row["prompt"], row.get("advantage")
    return RolloutRow(
        step=_typed(row["step"], int),
        sample=_typed(row["sample"], int),
        selected=_typed(row["selected"], bool),
        prompt=PromptRow(_typed(prompt["id"], str), _typed(prompt["text"], str), tuple(prompt.get("messages", ()))),
        completion=_completion_row(row["completion"]),
        reward=_reward(row["reward"]),
        refinement=_refinement_row(row["refinement"]),
        probe=_refinement_row(row.get("probe")),
        advantage=None if advantage is None else _typed(advantage, float),
    )


def _refinement_row(row: Mapping[str, Any] | None) -> RefinementRow | None:
    if row is None:
        return None
    return RefinementRow(
        completion=_completion_row(row["completion"]),
        reward=_reward(row["reward"]),
        accepted=_typed(row["accepted"], bool),
        prefix=_typed(row["prefix"], int),
        distance=_typed(row["distance"], int),
        copy_ratio=_typed(row["copy_ratio"], float),
    )


def _completion_row(row: Mapping[str, Any]) -> CompletionRow:
    ids, pieces, logprobs = (tuple(row.get(name, ())) for name in ("token_ids", "pieces", "logprobs"))
    kinds = ((ids, {int}), (pieces, {str}), (logprobs, {int, float, type(None)}))
    if "token_ids" not in row or not all(set(map(type, values)) <= kind for values, kind in kinds):
        raise TypeError
    if not all(0 <= token < 2**31 for token in ids):
        raise TypeError
    return CompletionRow(_typed(row["text"], str), ids, row["finish_reason"], pieces, logprobs)


def _reward(row: Mapping[str, Any] | None) -> Reward | None:
    if row is None:
        return None
    return Reward(
        _typed(row["value"], float),
        _typed(row["outcome"], str),
        None if row["pass_rate"] is None else _typed(row["pass_rate"], float),
        _typed(row.get("parts", {}), dict),
        extra=_typed(row.get("extra", {}), dict),
        failure=_typed(row.get("failure", ""), str),
    )

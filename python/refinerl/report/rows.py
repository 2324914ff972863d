"""A row of rollouts/step-N.jsonl: one response y with its reward and its refinement ỹ, written and read here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.records import Completion, FinishReason, Message, Refinement, Reward, Rollout

SCHEMA = 1
"""Of every file of a run that is read back."""


@dataclass(frozen=True)
class PromptRow:
    """A question x."""

    id: str
    text: str
    messages: tuple[Message, ...] = ()
    """The conversation that went through the chat template; empty where the model was prompted with bare text."""


@dataclass(frozen=True)
class CompletionRow:
    """A response y or ỹ."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class RefinementRow:
    """A rewrite ỹ of a response, and how it derives from it."""

    completion: CompletionRow
    reward: Reward | None
    accepted: bool
    """Did the filter let it teach."""
    prefix: int
    """Tokens that y and ỹ begin with alike."""
    distance: int
    """Insertions plus deletions, minimal."""
    copy_ratio: float
    """Share of ỹ's tokens that are kept from y."""


@dataclass(frozen=True)
class RolloutRow:
    """A response y of a step."""

    step: int
    sample: int
    """Which of the prompt's samples this is."""
    selected: bool
    """Did its group teach, or did dynamic sampling drop it."""
    prompt: PromptRow
    completion: CompletionRow
    reward: Reward | None
    """None where there is none: such a response is masked."""
    refinement: RefinementRow | None
    """None where no refinement was asked for."""


def to_json(step: int, rollout: Rollout, refinement: Refinement | None, *, selected: bool) -> str:
    """The line of a rollout."""
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "step": step,
        "sample": rollout.sample,
        "selected": selected,
        "prompt": _prompt(rollout),
        "completion": _completion(rollout.completion),
        "reward": None if rollout.reward is None else asdict(rollout.reward),
        "refinement": None,
    }
    if refinement is not None:
        row["refinement"] = {
            "completion": _completion(refinement.completion),
            "reward": None if refinement.reward is None else asdict(refinement.reward),
            "accepted": refinement.accepted,
            "prefix": refinement.alignment.prefix,
            "distance": refinement.alignment.distance,
            "copy_ratio": refinement.alignment.copy_ratio,
        }
    return json.dumps(row, ensure_ascii=False)


def read_step(run: Path, step: int) -> list[RolloutRow]:
    """The rows of one step of a run, in the order of its prompts.

    Raises:
        UserError: the run has no such step, or another version of refinerl wrote it.
    """
    path = run / "rollouts" / f"step-{step}.jsonl"
    if not path.exists():
        steps = sorted(int(other.stem.removeprefix("step-")) for other in path.parent.glob("step-*.jsonl"))
        known = f"it has {steps[0]} to {steps[-1]}" if steps else "it has none yet"
        raise UserError(f"{run} has no rollouts of step {step}: {known}")
    return list(_read(path))


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, a row for each step; None where a metric has no value."""
    path = run / "metrics.jsonl"
    return [row for where, row in json_lines(path) if readable(where, row)] if path.exists() else []


def readable(where: str, row: dict[str, Any]) -> bool:
    """See that this version of refinerl reads a row; True.

    Raises:
        UserError: another version wrote it.
    """
    if row.get("schema") != SCHEMA:
        raise UserError(
            f"{where} has schema {row.get('schema')}, this version of refinerl reads {SCHEMA}: another one wrote it"
        )
    return True


def _read(path: Path) -> Iterator[RolloutRow]:
    for where, row in json_lines(path):
        readable(where, row)
        prompt, refinement = row["prompt"], row["refinement"]
        yield RolloutRow(
            step=row["step"],
            sample=row["sample"],
            selected=row["selected"],
            prompt=PromptRow(prompt["id"], prompt["text"], tuple(prompt.get("messages", ()))),
            completion=_completion_row(row["completion"]),
            reward=_reward_row(row["reward"]),
            refinement=None
            if refinement is None
            else RefinementRow(
                _completion_row(refinement["completion"]),
                _reward_row(refinement["reward"]),
                refinement["accepted"],
                refinement["prefix"],
                refinement["distance"],
                refinement["copy_ratio"],
            ),
        )


def _completion_row(row: dict[str, Any]) -> CompletionRow:
    return CompletionRow(row["text"], tuple(row["token_ids"]), row["finish_reason"])


def _reward_row(row: dict[str, Any] | None) -> Reward | None:
    return None if row is None else Reward(row["value"], row["outcome"], row["pass_rate"])


def _prompt(rollout: Rollout) -> dict[str, Any]:
    prompt = rollout.prompt
    messages = [dict(message) for message in prompt.messages]
    return {"id": prompt.id, "text": prompt.text, **({"messages": messages} if messages else {})}


def _completion(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }

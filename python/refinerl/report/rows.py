"""The rows of a run's files: one rollout in rollouts/step-N.jsonl, one step in metrics.jsonl.

A run that evaluates begins its metrics.jsonl with a row of step 0, which holds the evaluation before training only.

All that writes or reads these files goes through here. JSON objects have the fields of the dataclasses below, in their
order, with a `schema` in front.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.records import Completion, FinishReason, Message, Refinement, Reward, Rollout

SCHEMA = 1
"""The version of the files of a run that are read back."""


@dataclass(frozen=True)
class PromptRow:
    """A question x."""

    id: str
    text: str
    messages: tuple[Message, ...] = ()
    """The conversation that went through the chat template; empty where the model was prompted with bare text."""


@dataclass(frozen=True)
class CompletionRow:
    """A response y or a refinement ỹ."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class RefinementRow:
    """A rewrite ỹ of a response y."""

    completion: CompletionRow
    reward: Reward | None
    accepted: bool
    """True if the filter accepted it, so that it teaches the policy."""
    prefix: int
    """Number of tokens in the common prefix of y and ỹ."""
    distance: int
    """Minimal number of insertions and deletions that turn y into ỹ."""
    copy_ratio: float
    """Share of ỹ's tokens that are kept from y."""


@dataclass(frozen=True)
class RolloutRow:
    """A response y, its reward and its refinement."""

    step: int
    sample: int
    """Index of the response among the prompt's samples."""
    selected: bool
    """False if dynamic sampling dropped the response's group."""
    prompt: PromptRow
    completion: CompletionRow
    reward: Reward | None
    """None if the response was not scored; it is then masked."""
    refinement: RefinementRow | None
    """None if no refinement was asked for."""
    probe: RefinementRow | None = None
    """A refinement that was measured and taught nothing (`refiner.probe`); accepted if it would have taught."""

    @property
    def gain(self) -> float | None:
        """R(ỹ) − R(y); None unless both are scored."""
        if self.reward is None or self.refinement is None or self.refinement.reward is None:
            return None
        return self.refinement.reward.value - self.reward.value

    def as_probe(self) -> RolloutRow:
        """Return the row with its probe, if it has one, in the place of the refinement."""
        return self if self.probe is None else replace(self, refinement=self.probe)

    def as_json(self) -> dict[str, Any]:
        """The row as the JSON object that `to_json` writes, without its schema."""
        values = {name: value for name, value in vars(self).items() if name != "probe" or value is not None}
        prompt = vars(self.prompt) if self.prompt.messages else {"id": self.prompt.id, "text": self.prompt.text}
        return {
            **values,
            "prompt": prompt,
            "completion": vars(self.completion),
            "reward": _plain(self.reward),
            "refinement": _plain_refinement(self.refinement),
            **({} if self.probe is None else {"probe": _plain_refinement(self.probe)}),
        }


def rollout_row(
    step: int, rollout: Rollout, refinement: Refinement | None, *, selected: bool, probe: Refinement | None = None
) -> RolloutRow:
    """Make the row of a rollout, of its refinement, if it has one, and of its probe."""
    prompt = rollout.prompt
    return RolloutRow(
        step=step,
        sample=rollout.sample,
        selected=selected,
        prompt=PromptRow(prompt.id, prompt.text, tuple(dict(message) for message in prompt.messages)),
        completion=_completion(rollout.completion),
        reward=rollout.reward,
        refinement=_refinement(refinement),
        probe=_refinement(probe),
    )


def _refinement(refinement: Refinement | None) -> RefinementRow | None:
    if refinement is None:
        return None
    alignment = refinement.alignment
    return RefinementRow(
        completion=_completion(refinement.completion),
        reward=refinement.reward,
        accepted=refinement.accepted,
        prefix=alignment.prefix,
        distance=alignment.distance,
        copy_ratio=alignment.copy_ratio,
    )


def to_json(row: RolloutRow) -> str:
    """Write a rollout's row as one line of JSON."""
    return json.dumps({"schema": SCHEMA, **row.as_json()}, ensure_ascii=False)


def metrics_row(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Make a step's row of metrics.jsonl, in alphabetical order; None where a metric is not finite.

    >>> metrics_row(3, {"reward/mean": 0.5, "policy/entropy": float("nan")})
    {'schema': 1, 'step': 3, 'policy/entropy': None, 'reward/mean': 0.5}
    """
    values = {name: metrics[name] if math.isfinite(metrics[name]) else None for name in sorted(metrics)}
    return {"schema": SCHEMA, "step": step, **values}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl: one row for each step, None where a metric has no value; [] before the first step.

    Where the run evaluates, the first row is that of step 0, which is no training step: see `training`.

    Raises:
        UserError: a line is damaged, or another version of refinerl wrote it.
    """
    path = run / "metrics.jsonl"
    return [row for _, row in _lines(path)] if path.exists() else []


def training(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of training steps, without the evaluation before step 1.

    >>> training([{"step": 0, "evaluate/pass@1": 0.2}, {"step": 1, "reward/mean": 0.5}])
    [{'step': 1, 'reward/mean': 0.5}]
    """
    return [row for row in metrics if row["step"]]


def evaluations(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of steps with an evaluation, that before step 1 included."""
    return [row for row in metrics if any(name.startswith("evaluate/") for name in row)]


def read_step(run: Path, step: int) -> list[RolloutRow]:
    """Read the rollouts of one step, in the order of its prompts.

    Raises:
        UserError: the run has no such step, a line is damaged, or another version of refinerl wrote it.
    """
    files = _step_files(run)
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
    files = _step_files(run)
    if not files:
        raise UserError(f"{run}: no step is finished yet, rollouts/ is empty")
    for step in sorted(files):
        yield from _read(files[step])


_STEP = re.compile(r"step-(\d+)\.jsonl")


def _step_files(run: Path) -> dict[int, Path]:
    folder = run / "rollouts"
    named = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return {int(match[1]): path for match, path in named if match}


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read (`file:line`, object) pairs, and refuse those of another schema."""
    for where, row in json_lines(path):
        if row.get("schema") != SCHEMA:
            raise UserError(
                f"{where} has schema {row.get('schema')}, this version of refinerl reads {SCHEMA}: another one wrote it"
            )
        yield where, row


def _read(path: Path) -> Iterator[RolloutRow]:
    for where, row in _lines(path):
        try:
            rollout = _rollout_row(row)
        except KeyError as error:
            raise UserError(f"{where} is not a rollout: the field {error} is missing") from error
        except (AttributeError, TypeError) as error:
            raise UserError(f"{where} is not a rollout: a field has the wrong type") from error
        yield rollout


def _rollout_row(row: Mapping[str, Any]) -> RolloutRow:
    prompt = row["prompt"]
    return RolloutRow(
        step=row["step"],
        sample=row["sample"],
        selected=row["selected"],
        prompt=PromptRow(prompt["id"], prompt["text"], tuple(prompt.get("messages", ()))),
        completion=_completion_row(row["completion"]),
        reward=_reward(row["reward"]),
        refinement=_refinement_row(row["refinement"]),
        probe=_refinement_row(row.get("probe")),
    )


def _refinement_row(row: Mapping[str, Any] | None) -> RefinementRow | None:
    if row is None:
        return None
    return RefinementRow(
        completion=_completion_row(row["completion"]),
        reward=_reward(row["reward"]),
        accepted=row["accepted"],
        prefix=row["prefix"],
        distance=row["distance"],
        copy_ratio=row["copy_ratio"],
    )


def _completion(completion: Completion) -> CompletionRow:
    return CompletionRow(completion.text, completion.token_ids, completion.finish_reason)


def _completion_row(row: Mapping[str, Any]) -> CompletionRow:
    return CompletionRow(row["text"], tuple(row["token_ids"]), row["finish_reason"])


def _plain_refinement(refinement: RefinementRow | None) -> dict[str, Any] | None:
    if refinement is None:
        return None
    return {**vars(refinement), "completion": vars(refinement.completion), "reward": _plain(refinement.reward)}


def _plain(reward: Reward | None) -> dict[str, Any] | None:
    if reward is None:
        return None
    scored: dict[str, Any] = {"value": reward.value, "outcome": reward.outcome, "pass_rate": reward.pass_rate}
    more = {"parts": dict(reward.parts), "extra": dict(reward.extra)}
    return scored | {name: values for name, values in more.items() if values}


def _reward(row: Mapping[str, Any] | None) -> Reward | None:
    if row is None:
        return None
    return Reward(row["value"], row["outcome"], row["pass_rate"], row.get("parts", {}), extra=row.get("extra", {}))

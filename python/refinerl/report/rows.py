"""The rows of a run's files: one rollout in rollouts/step-N.jsonl, one step in metrics.jsonl.

A run that evaluates begins its metrics.jsonl with a row of step 0, which holds the evaluation before training only.

All that writes or reads these files goes through here. JSON objects have the fields of the dataclasses below, in their
order, with a `schema` in front.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.records import Completion, FinishReason, Message, Refinement, Reward, Rollout

SCHEMA = 1
"""The version of metrics.jsonl."""
ROLLOUTS = 2
"""The version of rollouts/step-N.jsonl that is written."""
OLDER = 1
"""An earlier version, which is read too: it lacks advantages, failing tests, and the logprobs of tokens."""

DIGITS = 4
"""Decimals of the logprobs that are written."""

T = TypeVar("T")
Split = Callable[[Sequence[int]], Sequence[str]]
"""A function that splits the text of tokens by token."""


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
    pieces: tuple[str, ...] = ()
    """Text of each token, in the step's sample (`telemetry.token_costs`); elsewhere empty."""
    logprobs: tuple[float | None, ...] = ()
    """Logprob of each token by the policy that sampled y, in nats, in the same sample; None where it is not finite.

    That of y is the sampling engine's. −logprob of a token of ỹ is its cross-entropy, CE_t of Eq. 6."""


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
    advantage: float | None = None
    """Mean advantage of y's tokens in the update; None if y had no part in it."""

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
        optional = ("probe", "advantage")
        values = {name: value for name, value in vars(self).items() if name not in optional or value is not None}
        prompt = vars(self.prompt) if self.prompt.messages else {"id": self.prompt.id, "text": self.prompt.text}
        return {
            **values,
            "prompt": prompt,
            "completion": _plain_completion(self.completion),
            "reward": _plain(self.reward),
            "refinement": _plain_refinement(self.refinement),
            **({} if self.probe is None else {"probe": _plain_refinement(self.probe)}),
        }


def rollout_row(
    step: int,
    rollout: Rollout,
    refinement: Refinement | None,
    *,
    selected: bool,
    probe: Refinement | None = None,
    advantage: float | None = None,
    logprobs: Sequence[float] | None = None,
    split: Split | None = None,
) -> RolloutRow:
    """Make the row of a rollout, of its refinement, if it has one, and of its probe.

    Args:
        step: of the run.
        rollout: y.
        refinement: ỹ, if there is one.
        selected: False if dynamic sampling dropped its group.
        probe: the probe's ỹ, if there is one.
        advantage: of y in the update, if it had a part in it.
        logprobs: of the tokens of the probe's ỹ or else of ỹ, if it is in the step's sample.
        split: splits the text of tokens by token, for rollouts in the sample.
    """
    prompt = rollout.prompt
    shown = None if logprobs is None else split
    of_refinement = logprobs if probe is None else None
    return RolloutRow(
        step=step,
        sample=rollout.sample,
        selected=selected,
        prompt=PromptRow(prompt.id, prompt.text, tuple(dict(message) for message in prompt.messages)),
        completion=_completion(rollout.completion, rollout.completion.logprobs, shown),
        reward=rollout.reward,
        refinement=_refinement(refinement, of_refinement, shown),
        probe=_refinement(probe, logprobs, shown),
        advantage=advantage,
    )


def _refinement(
    refinement: Refinement | None, logprobs: Sequence[float] | None, split: Split | None
) -> RefinementRow | None:
    if refinement is None:
        return None
    alignment = refinement.alignment
    return RefinementRow(
        completion=_completion(refinement.completion, logprobs, split),
        reward=refinement.reward,
        accepted=refinement.accepted,
        prefix=alignment.prefix,
        distance=alignment.distance,
        copy_ratio=alignment.copy_ratio,
    )


def to_json(row: RolloutRow) -> str:
    """Write a rollout's row as one line of JSON."""
    return json.dumps({"schema": ROLLOUTS, **row.as_json()}, ensure_ascii=False)


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
    return [metrics_from_json(where, row) for where, row in _lines(path, (SCHEMA,))] if path.exists() else []


def metrics_from_json(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Check a line of metrics.jsonl; a number that is not finite, or whose square is not, becomes None.

    Raises:
        UserError: it is not a step of a run; the message begins with `where`.
    """
    if type(row.get("step")) is not int:
        raise UserError(f"{where} is not a step of a run: its field 'step' must be a whole number")
    if wrong := [name for name, value in row.items() if not isinstance(value, int | float | None)]:
        raise UserError(f"{where} is not a step of a run: its field {wrong[0]!r} must be a number or null")
    return {name: value if value is None or abs(value) < _LARGEST else None for name, value in row.items()}


_LARGEST = 1e150


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


def _lines(path: Path, schemas: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read (`file:line`, object) pairs, and refuse those of other schemas."""
    for where, row in json_lines(path):
        check_schema(where, row, schemas)
        yield where, row


def check_schema(where: str, row: Mapping[str, Any], schemas: Sequence[int]) -> None:
    """Refuse a row whose schema is none of these.

    Raises:
        UserError: another version of refinerl wrote the row.
    """
    if row.get("schema") not in schemas:
        known = " and ".join(map(str, schemas))
        raise UserError(
            f"{where} has schema {row.get('schema')}, this version of refinerl reads {known}: another one wrote it"
        )


def _read(path: Path) -> Iterator[RolloutRow]:
    for where, row in _lines(path, (OLDER, ROLLOUTS)):
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


def _completion(completion: Completion, logprobs: Sequence[float] | None, split: Split | None) -> CompletionRow:
    """Make a completion's row, with what `split` and the logprobs tell of its tokens if both are given."""
    ids = completion.token_ids
    if split is None or logprobs is None:
        return CompletionRow(completion.text, ids, completion.finish_reason)
    rounded = tuple(round(value, DIGITS) if math.isfinite(value) else None for value in logprobs)
    return CompletionRow(completion.text, ids, completion.finish_reason, tuple(split(ids)), rounded)


def _completion_row(row: Mapping[str, Any]) -> CompletionRow:
    ids, pieces, logprobs = (tuple(row.get(name, ())) for name in ("token_ids", "pieces", "logprobs"))
    kinds = ((ids, {int}), (pieces, {str}), (logprobs, {int, float, type(None)}))
    if "token_ids" not in row or not all(set(map(type, values)) <= kind for values, kind in kinds):
        raise TypeError
    if not all(0 <= token < 2**31 for token in ids):
        raise TypeError
    return CompletionRow(_typed(row["text"], str), ids, row["finish_reason"], pieces, logprobs)


def _plain_completion(completion: CompletionRow) -> dict[str, Any]:
    """Return the fields, without those that are empty outside the step's sample."""
    optional = ("pieces", "logprobs")
    return {name: value for name, value in vars(completion).items() if name not in optional or value}


def _plain_refinement(refinement: RefinementRow | None) -> dict[str, Any] | None:
    if refinement is None:
        return None
    return {
        **vars(refinement),
        "completion": _plain_completion(refinement.completion),
        "reward": _plain(refinement.reward),
    }


def _plain(reward: Reward | None) -> dict[str, Any] | None:
    if reward is None:
        return None
    scored: dict[str, Any] = {"value": reward.value, "outcome": reward.outcome, "pass_rate": reward.pass_rate}
    more = {"parts": dict(reward.parts), "extra": dict(reward.extra), "failure": reward.failure}
    return scored | {name: values for name, values in more.items() if values}


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

"""The rows of rollouts/step-N.jsonl: what they hold, and how they are made and written; `reading` reads them.

A row is a JSON object with the fields of the dataclasses below, in their order, and a `schema` in front.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from refinerl.records import Completion, FinishReason, Message, Refinement, Reward, Rollout
from refinerl.report.schema import ROLLOUTS

DIGITS = 4
"""Decimals of the logprobs that are written."""

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


def _completion(completion: Completion, logprobs: Sequence[float] | None, split: Split | None) -> CompletionRow:
    """Make a completion's row, with what `split` and the logprobs tell of its tokens if both are given."""
    ids = completion.token_ids
    if split is None or logprobs is None:
        return CompletionRow(completion.text, ids, completion.finish_reason)
    rounded = tuple(round(value, DIGITS) if math.isfinite(value) else None for value in logprobs)
    return CompletionRow(completion.text, ids, completion.finish_reason, tuple(split(ids)), rounded)


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

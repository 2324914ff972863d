"""Rows of a run's files: their schema, and the form of a rollout's."""

from __future__ import annotations

from typing import Any

from refinerl.records import Completion, Prompt, Refinement, Reward, Rollout

SCHEMA = 1
"""Of metrics.jsonl and rollouts/; files of another one are refused."""


def rollout_row(step: int, rollout: Rollout, refinement: Refinement | None, *, selected: bool) -> dict[str, Any]:
    """One y with its ỹ, as a row of rollouts/step-N.jsonl; `selected`: its group had a signal."""
    return {
        "schema": SCHEMA,
        "step": step,
        "sample": rollout.sample,
        "selected": selected,
        "prompt": _prompt(rollout.prompt),
        "completion": _completion(rollout.completion),
        "reward": _reward(rollout.reward),
        "refinement": None if refinement is None else _refinement(refinement),
    }


def _refinement(refinement: Refinement) -> dict[str, Any]:
    return {
        "completion": _completion(refinement.completion),
        "reward": _reward(refinement.reward),
        "accepted": refinement.accepted,
        "prefix": refinement.alignment.prefix,
        "distance": refinement.alignment.distance,
        "copy_ratio": refinement.alignment.copy_ratio,
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    messages = [dict(message) for message in prompt.messages]
    return {"id": prompt.id, "text": prompt.text, **({"messages": messages} if messages else {})}


def _completion(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }


def _reward(reward: Reward | None) -> dict[str, Any] | None:
    if reward is None:
        return None
    return {"value": reward.value, "outcome": reward.outcome, "pass_rate": reward.pass_rate}

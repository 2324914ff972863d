"""Responses that may replace y. Read without torch, since options of constraints are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refinerl.records import Completion, Decoding, Reward, Rollout


@dataclass(frozen=True)
class Drafts:
    """Responses to x that may replace y, before they are scored."""

    responses: Sequence[tuple[Rollout, Completion]]
    """Pairs of y and ỹ. Several ỹ for one y are tries, of which the best counts."""
    rewards: Sequence[Reward | None] | None = None
    """Rewards of the responses where they are known already. None: they are scored."""
    written: int = 0
    """Tokens that were generated."""
    read: int = 0
    """Tokens of the prompts."""
    decoded: Decoding | None = None
    """Counts of the engine; None if none wrote them, or if they are not known."""
    failed: int = 0
    """Rollouts without a response, because a server failed."""
    shown: bool = False
    """True if their author may have been shown feedback on y, from which a response could repeat an answer."""

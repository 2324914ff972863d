"""The section `critic`."""

from __future__ import annotations

from refinerl.contracts.options import Positive, Section


class CriticConfig(Section):
    """PPO's value model."""

    model: str | None = None
    """None: initialised from the policy, with a zero scalar head."""
    learning_rate: Positive = 9e-6

"""The section `critic`."""

from __future__ import annotations

from refinerl.contracts.options import Positive, Section, derived


class CriticConfig(Section):
    """PPO's value model."""

    model: str = derived("model")
    """A hub id or a folder. Its scalar head is kept if it has one; else the head starts at zero."""
    learning_rate: Positive = 9e-6

"""The section `critic`."""

from __future__ import annotations

from refinerl.contracts.options import ModelPath, Positive, Section, derived


class CriticConfig(Section):
    """PPO's value model."""

    model: ModelPath = derived("model")
    """Hub id or folder to start from. A scalar head is kept if the model has one; otherwise the head starts at zero."""
    learning_rate: Positive = 9e-6
    """Peak learning rate."""

"""The section `critic`."""

from __future__ import annotations

from refinerl.config.conditions import CRITIC
from refinerl.contracts.options import ALL, ModelPath, Positive, Reads, Section, derived


class CriticConfig(Section):
    """PPO's value model."""

    read_when = Reads({ALL: CRITIC})

    model: ModelPath = derived("model")
    """Hub id or folder to start from. A scalar head is kept if the model has one; otherwise the head starts at zero."""
    learning_rate: Positive = 9e-6
    """Peak learning rate."""

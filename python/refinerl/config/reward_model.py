"""The section `reward_model`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Section, derived


class RewardModelConfig(Section):
    """dialogue: the model that scores, for task.reward=model."""

    model: str | None = None
    """A hub id or a folder: AutoModelForSequenceClassification with one label, or OpenRLHF's layout."""
    device: str = derived("device")
    """A torch device; `auto` is the run's."""
    dtype: Literal["float32", "bfloat16"] = derived("dtype")
    batch: Count = 8
    """Conversations that go through it at once."""
    max_length: Count | None = None
    """Tokens of a conversation; longer ones are cut at their start. None: the model's context."""
    normalize: bool | None = None
    """(score − mean) / std, both from its config.json. None: where it has them."""
    chat_template: str | None = None
    """Jinja text or a file, for tokenizers that bring none."""

"""The section `reward_model`."""

from __future__ import annotations

from typing import Literal

from refinerl.config.conditions import SCORED_BY_MODEL
from refinerl.contracts.options import ALL, Count, ModelPath, Reads, Section, TemplatePath, derived


class RewardModelConfig(Section):
    """The reward model, for task.name=dialogue with task.reward=model."""

    read_when = Reads({ALL: SCORED_BY_MODEL})

    model: ModelPath | None = None
    """Hub id or folder: an AutoModelForSequenceClassification with one label, or a model in OpenRLHF's layout."""
    device: str = derived("device")
    """A torch device. `auto`: the run's."""
    dtype: Literal["float32", "bfloat16"] = derived("dtype")
    """Type of its weights."""
    batch: Count = 8
    """Conversations that are scored at once."""
    max_length: Count | None = None
    """Maximum tokens of a conversation; longer ones lose their beginning. None: the model's context."""
    normalize: bool | None = None
    """Use (score − mean) / std, with mean and std from its config.json. None: if config.json has them."""
    chat_template: TemplatePath | None = None
    """Jinja template, as text or as a file. None: the tokenizer's own."""

"""The section `trainer`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Fraction, NonNegative, Positive, Section, derived


class TrainerConfig(Section):
    """Batches and the optimizer."""

    steps: Count = 100
    """Batches of rollouts; they end the run."""
    epochs: Count | None = None
    """Passes over the prompts at most; None: as many as the steps need."""
    batch: Count = 64
    """Rollouts per step."""
    minibatch: Count = derived("trainer.batch")
    """Rollouts per optimizer step."""
    micro_batch: Count | None = None
    """Rows that go through the model at once, at most; None: as many as micro_batch_tokens allows."""
    micro_batch_tokens: Count = 4096
    """Tokens, padding included, that go through the model at once; a longer row goes alone."""
    learning_rate: Positive = 1e-6
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    warmup: Fraction = 0.03
    """Share of the optimizer steps over which the learning rate rises."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    min_learning_rate: Fraction = 0.1
    """Where the schedule ends, as a share of learning_rate."""
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False

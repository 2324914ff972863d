"""The section `trainer`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Fraction, NonNegative, Positive, Reads, Section, When, derived


class TrainerConfig(Section):
    """Batches and the optimizer."""

    read_when = Reads(
        {
            "share_prefixes": When("trainer.micro_batch above 1", lambda own, run: own.micro_batch != 1),
            "min_learning_rate": When("trainer.schedule=linear or cosine", lambda own, run: own.schedule != "constant"),
        }
    )

    steps: Count = 100
    """Number of steps, each with a batch of rollouts."""
    epochs: Count | None = None
    """Maximum passes over the prompts. None: as many as the steps need."""
    batch: Count = 64
    """Rollouts per step."""
    minibatch: Count = derived("trainer.batch")
    """Rollouts per optimizer step."""
    micro_batch: Count | None = None
    """Maximum rows per forward pass. None: as many as micro_batch_tokens allows."""
    micro_batch_tokens: Count = 4096
    """Maximum tokens per forward pass: padding counts, a shared prefix counts once. A longer row is processed alone."""
    share_prefixes: Literal["auto", "always", "never"] = "auto"
    """Compute a prefix that rows share, such as a prompt, once: where counts say that it is faster, always or never."""
    learning_rate: Positive = 1e-6
    """Peak learning rate of the policy."""
    weight_decay: NonNegative = 0.0
    """AdamW's weight decay."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """AdamW's betas."""
    warmup: Fraction = 0.03
    """Share of the optimizer steps over which the learning rate rises to its peak."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    min_learning_rate: Fraction = 0.1
    """Learning rate at the end of the schedule, as a share of learning_rate."""
    max_grad_norm: Positive = 1.0
    """Norm to which gradients are clipped."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""

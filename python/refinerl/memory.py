"""Memory: what a model's weights, gradients and optimizer take on each rank, and what to turn where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from refinerl.errors import TrainingStoppedError

KNOBS = {
    "generate": "generation.max_batch or generation.max_tokens",
    "refine": "generation.max_batch or refiner.max_tokens",
    "score": "sandbox.workers or sandbox.memory_mb",
    "update": "trainer.micro_batch_tokens, set trainer.gradient_checkpointing=true, or raise "
    "deepspeed.zero_optimization.stage",
    "sync": "deepspeed.zero_optimization.stage3_param_persistence_threshold or generation.max_batch",
}
"""What to lower where a phase runs out of memory."""

_ELSEWHERE = "the models' sizes (dtype=bfloat16, or spread them: deepspeed.zero_optimization.stage=3 on more ranks)"
_SAID = ("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator")


@contextmanager
def explained(phase: str) -> Iterator[None]:
    """Says which phase ran out of memory, and what to turn.

    Raises:
        TrainingStoppedError: instead of PyTorch's or Python's error.
    """
    try:
        yield
    except TrainingStoppedError:
        raise
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(said in text for said in _SAID):
            raise
        raise TrainingStoppedError(
            f"out of memory in phase {phase}: lower {KNOBS.get(phase, _ELSEWHERE)}; --resume goes on from the last "
            f"checkpoint ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


@dataclass(frozen=True)
class Shares:
    """Bytes on each rank."""

    weights: int
    gradients: int
    optimizer: int
    """Both moments of AdamW, and the float32 weights where the model computes in a smaller type."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer


def shares(parameters: int, width: int, *, stage: int = 0, ranks: int = 1, master: bool = False) -> Shares:
    """What one trained model takes on each rank, without activations, under a ZeRO stage.

    Stage 1 spreads the optimizer over the ranks, stage 2 the gradients too, stage 3 the weights too. `width` is the
    bytes of a weight; `master` says that the optimizer keeps float32 weights beside them (DeepSpeed's bf16).
    """
    moments = 2 * parameters * (4 if master else width)
    masters = 4 * parameters if master or stage in (1, 2, 3) else 0
    spread = [1, 1, 1]
    for part, from_stage in enumerate((3, 2, 1)):
        if stage >= from_stage:
            spread[part] = ranks
    return Shares(
        weights=-(-parameters * width // spread[0]),
        gradients=-(-parameters * width // spread[1]),
        optimizer=-(-(moments + masters) // spread[2]),
    )

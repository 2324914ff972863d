"""Memory: what a model's weights, gradients and optimizer take on each rank, and what to turn where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from refinerl.errors import TrainingStoppedError

_WRITING = "lower generation.max_batch (with vLLM: vllm.memory_policy and vllm.memory_refiner)"
_SPREAD = "engines.offload_reference=true helps too; in a new run also a higher deepspeed.zero_optimization.stage"
KNOBS = {
    "generate": _WRITING,
    "refine": _WRITING,
    "evaluate": _WRITING,
    "score": "lower sandbox.workers",
    "update": f"lower trainer.micro_batch_tokens, set trainer.gradient_checkpointing=true; {_SPREAD}",
    "sync": f"lower vllm.memory_policy and vllm.memory_refiner; {_SPREAD}",
}
"""What to turn where a phase runs out of memory. A resumed run may turn all of it, unless it says otherwise."""

_ELSEWHERE = (
    "lower the models' sizes (dtype=bfloat16, or spread them: deepspeed.zero_optimization.stage=3 on more ranks)"
)
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
            f"out of memory in phase {phase}: {KNOBS.get(phase, _ELSEWHERE)}; --resume goes on from the last "
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

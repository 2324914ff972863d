"""The message of a phase that ran out of memory: its name, and the knobs that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from refinerl.errors import TrainingStoppedError

_WRITING = "lower generation.max_batch (with vLLM: vllm.memory_policy and vllm.memory_refiner)"
_SPREAD = "engines.offload_reference=true helps too; in a new run also a higher deepspeed.zero_optimization.stage"
KNOBS = {
    "generate": _WRITING,
    "refine": _WRITING,
    "evaluate": _WRITING,
    "score": "lower sandbox.workers, or reward_model.batch where a model scores",
    "update": "lower trainer.micro_batch_tokens, set trainer.gradient_checkpointing=true, or "
    f"trainer.share_prefixes=never; {_SPREAD}",
    "load reward_model.model": "choose another reward_model.device, or in a new run reward_model.dtype=bfloat16",
    "sync": f"lower vllm.memory_policy and vllm.memory_refiner; {_SPREAD}",
}
"""Knobs that help a phase that ran out of memory. A resumed run may change them, unless the text says otherwise."""

_ELSEWHERE = (
    "lower the models' sizes (dtype=bfloat16, or spread them: deepspeed.zero_optimization.stage=3 on more ranks)"
)
_SAID = ("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator")


@contextmanager
def explained(phase: str) -> Iterator[None]:
    """Turn an out-of-memory error into one that names the phase and the knobs that help.

    Raises:
        TrainingStoppedError: in place of PyTorch's or Python's error.
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

"""The section `vllm`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from refinerl.contracts.options import Count, CountOrZero, Section


class VllmConfig(Section):
    """vLLM's engines, where engines.generator=vllm."""

    tensor_parallel: Count = 1
    """Ranks that share an engine."""
    memory_policy: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the GPU's memory for the policy's engine. On a CPU the cache has 1 GiB instead, or
    $VLLM_CPU_KVCACHE_SPACE."""
    memory_refiner: Annotated[float, Field(gt=0, le=1)] = 0.3
    """The same for the refiner's engine; a LoRA policy has one engine for both."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Tokens of prompt and completion that fit; None: the model's."""
    max_num_seqs: Count = 256
    """Completions that an engine writes at a time, as far as its cache holds them. More give more tokens a second, and
    take memory from the cache: rows × vocabulary × 4 bytes for each of a few tensors."""
    enforce_eager: bool = False
    """No CUDA graphs: starts faster, generates slower. Always so on a CPU."""
    sleep: bool = True
    """Free the engines' memory while they wait, where the device can; a CPU cannot."""
    prefix_caching: bool = True
    """Compute a prompt once for all its samples."""
    speculate: CountOrZero = 0
    """dynamic: tokens that the refiner's engine guesses at a time by copying from its prompt; 0 is off, 8 a start."""

    @model_validator(mode="after")
    def _resolve(self) -> VllmConfig:
        shares = self.memory_policy + self.memory_refiner
        if shares > 1 and not self.sleep:
            raise ValueError(
                f"vllm.memory_policy and vllm.memory_refiner must sum to at most 1, got {shares:g}: with "
                "vllm.sleep=false both engines keep their memory, and 0.3 each leaves the trainer the rest"
            )
        return self

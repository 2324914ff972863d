"""The section `vllm`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from refinerl.config.conditions import GPU, VLLM
from refinerl.contracts.options import ALL, Count, Reads, Section, When


class VllmConfig(Section):
    """The vLLM engines, used with engines.generator=vllm."""

    read_when = Reads(
        {
            ALL: VLLM,
            **dict.fromkeys(("memory_policy", "enforce_eager", "sleep"), GPU),
            "memory_refiner": When(
                "a GPU and a refiner that has an engine of its own: lora.rank=0 and a constraint that asks it",
                lambda own, run: run.refiner_apart and run.device != "cpu",
            ),
        }
    )

    tensor_parallel: Count = 1
    """Number of ranks that share an engine."""
    memory_policy: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the GPU's memory for the policy's engine. On a CPU its cache has 1 GiB, or the GiB of
    $VLLM_CPU_KVCACHE_SPACE."""
    memory_refiner: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the GPU's memory for the refiner's engine. A LoRA policy uses one engine for both."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Maximum tokens of prompt and completion together. None: the model's context."""
    max_num_seqs: Count = 256
    """Completions that an engine generates at once, as far as its cache allows. More raise the throughput but take
    memory from the cache: rows × vocabulary × 4 bytes for each of several tensors."""
    enforce_eager: bool = False
    """Disable CUDA graphs: faster start, slower generation. Always the case on a CPU."""
    sleep: bool = True
    """Free the engines' GPU memory while they are idle. Has no effect on a CPU."""
    prefix_caching: bool = True
    """Compute each prompt once for all of its samples."""

    @model_validator(mode="before")
    @classmethod
    def _read_speculate(cls, values: Any) -> Any:
        """Drop a knob that runs of an earlier state have in their config.yaml, if it is off."""
        if isinstance(values, dict) and "speculate" in values:
            values = dict(values)
            if values.pop("speculate"):
                raise ValueError(
                    "vllm.speculate is no knob any more: the refiner copies from y instead of its prompt, with "
                    "refiner.drafts=8"
                )
        return values

    @model_validator(mode="after")
    def _resolve(self) -> VllmConfig:
        shares = self.memory_policy + self.memory_refiner
        if shares > 1 and not self.sleep:
            raise ValueError(
                f"vllm.memory_policy and vllm.memory_refiner must sum to at most 1, got {shares:g}: with "
                "vllm.sleep=false both engines keep their memory; 0.3 each leaves the rest to the trainer"
            )
        return self

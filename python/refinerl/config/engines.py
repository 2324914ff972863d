"""The section `engines`."""

from __future__ import annotations

from typing import Literal

from refinerl.config.conditions import GPU, RANKS
from refinerl.contracts.options import Positive, Reads, Section


class EnginesConfig(Section):
    """The engines that generate and train."""

    read_when = Reads({"timeout": RANKS, "tf32": GPU, "offload_reference": GPU})

    generator: Literal["transformers", "vllm"] = "transformers"
    """transformers: generates with the trainer's own weights; vllm: a vLLM engine with its own copy of the weights."""
    trainer: Literal["torch", "deepspeed"] = "torch"
    """torch: one process; deepspeed: one or more processes, started by torchrun or DeepSpeed's launcher."""
    timeout: Positive = 1800.0
    """Seconds that ranks wait for each other before the run is ended. Must exceed the longest phase of a step."""
    tf32: bool = True
    """Use TF32 for float32 matrix products on a GPU: faster, with 11 bits of precision in place of 24."""
    offload_reference: bool = False
    """Keep the frozen reference in host memory while it is not in use."""

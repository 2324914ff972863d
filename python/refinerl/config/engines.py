"""The section `engines`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Positive, Section


class EnginesConfig(Section):
    """What generates and what trains, in one process or in many."""

    generator: Literal["transformers", "vllm"] = "transformers"
    """transformers: in this process, on the trainer's own weights; vllm: an engine with weights of its own."""
    trainer: Literal["torch", "deepspeed"] = "torch"
    """torch: one process; deepspeed: one or many, started by torchrun or DeepSpeed's launcher."""
    timeout: Positive = 1800.0
    """Seconds that ranks wait for each other before the run ends: more than the longest phase of a step."""
    tf32: bool = True
    """On a GPU float32 products round their factors to TF32's 11 bits, which is faster; false: all 24."""
    offload_reference: bool = False
    """Keep the frozen reference in the host's memory while nobody uses it."""

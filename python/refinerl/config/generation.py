"""The section `generation`."""

from __future__ import annotations

from refinerl.contracts.options import Count, Positive, Section


class GenerationConfig(Section):
    """How the policy samples y."""

    max_tokens: Count = 512
    temperature: Positive = 1.0
    stop: tuple[str, ...] = ()
    max_batch: Count = 32
    """Samples that transformers generates at once; for vLLM see vllm.max_num_seqs."""

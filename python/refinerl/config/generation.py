"""The section `generation`."""

from __future__ import annotations

from refinerl.config.conditions import TRANSFORMERS
from refinerl.contracts.options import Count, Positive, Reads, Section


class GenerationConfig(Section):
    """Sampling of the policy's responses y."""

    read_when = Reads({"max_batch": TRANSFORMERS})

    max_tokens: Count = 512
    """Maximum tokens of a response."""
    temperature: Positive = 1.0
    """Sampling temperature. The policy's logprobs are those of the distribution at this temperature."""
    stop: tuple[str, ...] = ()
    """Texts that end a response."""
    max_batch: Count = 32
    """Responses that transformers generates at once. For vLLM see vllm.max_num_seqs."""

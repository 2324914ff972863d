"""Random models of a real one's shape."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from gpu_check.site import Site

QWEN_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
SMALL = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def random_qwen(site: Site, dtype: torch.dtype, layers: int | None = None) -> PreTrainedModel:
    """Qwen2.5-1.5B, with fewer layers where that is said; two small layers in a rehearsal."""
    shape = SMALL if site.rehearsing else QWEN_1_5B | ({} if layers is None else {"num_hidden_layers": layers})
    config = Qwen2Config(**shape, tie_word_embeddings=True, max_position_embeddings=4096, eos_token_id=2)
    torch.manual_seed(0)
    with torch.device(site.device):
        model: PreTrainedModel = Qwen2ForCausalLM(config)
    return model.to(dtype).eval()

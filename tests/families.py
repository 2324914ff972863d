"""Model families other than Llama, tiny and random."""

from __future__ import annotations

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tiny import tiny_model

FAMILIES = ("gpt2", "qwen2", "qwen3", "mistral", "gemma3", "phi3", "eager")

SHAPE = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}


def windowed(family: str, window: int | None) -> PreTrainedModel:
    """A model with a context of 256 tokens, and a window in all layers or in some."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match family:
            case "mistral":
                return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=window))
            case "phi3":
                return Phi3ForCausalLM(Phi3Config(**SHAPE, sliding_window=window))
            case "phimoe":  # in the mask alone
                return PhimoeForCausalLM(PhimoeConfig(**SHAPE, num_local_experts=4, sliding_window=window))
            case "qwen2_moe":  # in the mask alone, and in some layers
                options = {"use_sliding_window": window is not None, "sliding_window": window}
                return Qwen2MoeForCausalLM(Qwen2MoeConfig(**SHAPE, **EXPERTS, num_experts=4, **options))
    raise AssertionError(family)


def build(family: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match family:
            case "gpt2":
                return GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=256))
            case "qwen2":  # biases in attention
                return Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True))
            case "qwen3":  # norms in attention
                return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16))
            case "mistral":  # a window shorter than the sequences
                return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=7))
            case "gemma3":  # windows in some layers, embeddings scaled
                return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=7))
            case "phi3":  # fused projections
                return Phi3ForCausalLM(Phi3Config(**SHAPE))
            case "eager":
                config = tiny_model().config
                config._attn_implementation = "eager"
                return LlamaForCausalLM(config)
    raise AssertionError(family)

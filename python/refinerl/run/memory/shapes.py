"""Shapes of models, from which their sizes follow without loading weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder like Llama, with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True
    """True if the head is the embedding."""
    bias: bool = False
    """True if the projections to queries, keys and values have a bias, as in Qwen2."""
    context: int = 0
    """Maximum tokens of a sequence."""
    counted: int | None = None
    """Number of weights if it was counted on the model; None: it follows from the shape."""

    @property
    def q(self) -> int:
        """Width of the queries."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Number of weights of the embedding, and of the head."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Number of weights with the head; tied weights count once."""
        if self.counted is not None:
            return self.counted
        return self.trunk + (0 if self.tied else self.embedding)

    @property
    def trunk(self) -> int:
        """Number of weights without a separate head: those of a critic or a reward model."""
        layer = 2 * self.hidden * (self.q + self.kv) + 3 * self.hidden * self.intermediate + 2 * self.hidden
        layer += self.bias * (self.q + 2 * self.kv)
        return self.layers * layer + self.hidden + self.embedding

    def adapter(self, rank: int, targets: tuple[str, ...] = ()) -> int:
        """Count the weights of a LoRA adapter on these linear layers, by default all but the head."""
        h, i = self.hidden, self.intermediate
        sides = {"q_proj": h + self.q, "k_proj": h + self.kv, "v_proj": h + self.kv, "o_proj": self.q + h}
        sides |= {"gate_proj": h + i, "up_proj": h + i, "down_proj": i + h}
        return self.layers * rank * sum(size for name, size in sides.items() if not targets or name in targets)

    @staticmethod
    def of(config: Any, counted: int | None = None) -> Shape:
        """Read the shape from a transformers configuration."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        return Shape(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocabulary=text.vocab_size,
            tied=bool(text.tie_word_embeddings),
            bias=text.model_type == "qwen2",
            context=getattr(text, "max_position_embeddings", None) or 0,
            counted=counted,
        )


_MINIATURE = Shape(3, 96, 240, 4, 4, 24, 188, context=256)
_LLAMA_3B = Shape(28, 3072, 8192, 24, 8, 128, 128_256, context=131_072)
_LLAMA_8B = Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False, context=8192)
_QWEN_HALF = Shape(24, 896, 4864, 14, 2, 64, 151_936, bias=True, context=32_768)
_QWEN_1_5B = Shape(28, 1536, 8960, 12, 2, 128, 151_936, bias=True, context=32_768)
KNOWN = {
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA_3B,
    "OpenRLHF/Llama-3-8b-rm-mixture": _LLAMA_8B,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": _QWEN_1_5B,
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_1_5B,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": _QWEN_HALF,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN_HALF,
    "miniature": _MINIATURE,
    "miniature-far": _MINIATURE,
    "smollm2-135m-instruct": Shape(30, 576, 1536, 9, 3, 64, 49_152, context=8192),
}
"""Models of the recipes, so that a plan needs neither their files nor a network."""


def find(model: str) -> Shape | None:
    """Return the shape of a known model or of one on this machine, which is not loaded; None for any other.

    >>> find("Qwen/Qwen2.5-0.5B-Instruct").layers
    24
    """
    known = {name.lower(): shape for name, shape in KNOWN.items()}
    if model.lower() in known:
        return known[model.lower()]
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    offline = os.environ.get("HF_HUB_OFFLINE")
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=not Path(model).is_dir() or offline is not None)
        with torch.device("meta"):
            built: Any = AutoModelForCausalLM.from_config(config)
        return Shape.of(config, counted=int(built.num_parameters()))
    except (OSError, ValueError, AttributeError):
        return None


def parameters(model: str) -> int | None:
    """Return the number of weights of such a model.

    >>> parameters("Qwen/Qwen2.5-0.5B-Instruct")
    494032768
    """
    shape = find(model)
    return None if shape is None else shape.parameters

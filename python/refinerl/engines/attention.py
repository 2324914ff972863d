"""Attention for decoding: few query tokens, and keys and values that several query heads share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

GROUPED = "refinerl_grouped"
"""The name of this attention in transformers' registry."""


def _grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention of few query tokens over grouped keys: heads that share a key head become its queries.

    transformers copies keys and values once per query head before it calls `scaled_dot_product_attention`; that copy is
    most of the attention's time at few tokens. Prompts take transformers' own function.
    """
    batch, heads, tokens, width = query.shape
    if tokens > 1 and (attention_mask is None or tokens == key.shape[2]):
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return out, None
    group = heads // key.shape[1]
    if attention_mask is not None and tokens > 1:
        attention_mask = attention_mask.repeat(1, 1, group, 1)  # (B, 1, tokens, keys), the same for every head
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], group * tokens, width),
        key,
        value,
        attn_mask=attention_mask,
        scale=options.get("scaling"),
    )
    return out.reshape(batch, heads, tokens, -1).transpose(1, 2), None


AttentionInterface.register(GROUPED, _grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)

"""Attention for decoding: one query token, and keys and values that several query heads share."""

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
    """Compute attention of one query token over grouped keys: query heads that share a key head become its queries.

    transformers copies keys and values once per query head before it calls `scaled_dot_product_attention`; that copy is
    most of the attention's time at a single token. Longer queries take transformers' own function.
    """
    batch, heads, tokens, width = query.shape
    if tokens > 1:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return out, None
    grouped = query.view(batch, key.shape[1], heads // key.shape[1], width)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return out.reshape(batch, 1, heads, -1), None


AttentionInterface.register(GROUPED, _grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)

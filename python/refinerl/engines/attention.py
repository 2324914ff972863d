"""Attention of ours in transformers' registry: for decoding, and for rows that share prefixes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from refinerl.engines.segments import Segments

GROUPED = "refinerl_grouped"
"""The name of the attention for decoding: few query tokens, and keys that several query heads share."""
SEGMENTED = "refinerl_segmented"
"""The name of the attention for rows that share prefixes. Given no `segments` it is transformers' own."""

_UNKNOWN = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")
"""Options of attention that change its result, by their names in transformers; only rows alone have them."""


class UnknownAttentionError(NotImplementedError):
    """A model's attention does more than that of trees."""


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


def _segmented_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention over a tree of tokens, (1, heads, T, width); its mask follows from `segments`.

    Raises:
        UnknownAttentionError: the model's attention is not plain causal attention.
    """
    if segments is None:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return out, None
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if unknown or options.get("dropout") or not getattr(module, "is_causal", True):
        raise UnknownAttentionError(
            f"its attention is not plain and causal ({', '.join(unknown) or 'mask or dropout'})"
        )
    return segments.attend(query[0], key[0], value[0], options.get("scaling")).unsqueeze(0), None


for _name, _attention in ((GROUPED, _grouped_attention), (SEGMENTED, _segmented_attention)):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, sdpa_mask)

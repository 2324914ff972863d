"""Attention of ours in transformers' registry: for decoding, and for rows that share prefixes.

A model makes its own masks where it gets none, and transformers' attention obeys them whatever else a model says. A
tree has no room for a mask, so a model is first asked for its masks with the attention `PLAIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from refinerl.engines.segments import Segments

GROUPED = "refinerl_grouped"
"""The name of the attention for decoding: few query tokens, and keys that several query heads share."""
SEGMENTED = "refinerl_segmented"
"""The name of the attention for rows that share prefixes. Given no `segments` it is transformers' own."""

PLAIN = "refinerl_plain"
"""The name of an attention that refuses a mask which is not the causal one up to the end of the model's context."""

_UNKNOWN = ("softcap", "s_aux", "position_bias", "cache")
"""Options of attention that change its result, by their names in transformers; only rows alone have them."""


@contextmanager
def decoding(model: PreTrainedModel) -> Iterator[bool]:
    """Put a model in evaluation mode with attention for single tokens, and restore both on leaving.

    Gives True if the model has the attention of rows that share prefixes, which was probed then.
    """
    modes = [(module, module.training) for module in model.modules()]
    config = model.config
    attention = config._attn_implementation
    model.eval()
    if attention in ("sdpa", SEGMENTED):
        config._attn_implementation = GROUPED
    try:
        yield attention == SEGMENTED
    finally:
        config._attn_implementation = attention
        for module, training in modes:
            module.training = training


@contextmanager
def segmented(model: PreTrainedModel) -> Iterator[None]:
    """Give a model the attention of rows that share prefixes, and its own on leaving."""
    config = model.config
    attention = config._attn_implementation
    config._attn_implementation = SEGMENTED
    try:
        yield
    finally:
        config._attn_implementation = attention


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
    window = options.get("sliding_window")
    if window is not None and window < segments.depth:
        unknown.append(f"sliding_window = {window}")
    if attention_mask is not None and attention_mask.numel() > 1:
        unknown.append("a mask of its own")
    if unknown or options.get("dropout") or not getattr(module, "is_causal", True):
        raise UnknownAttentionError(
            f"its attention is not plain and causal ({', '.join(unknown) or 'mask or dropout'})"
        )
    return segments.attend(query[0], key[0], value[0], options.get("scaling")).unsqueeze(0), None


def _plain_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute causal attention of rows, if that is what the mask of `_is_causal` says.

    Raises:
        UnknownAttentionError: the mask leaves tokens of a prefix out, or has others.
    """
    if attention_mask is not None and not bool(attention_mask.all()):
        raise UnknownAttentionError("its attention does not go over whole prefixes (a window, or chunks)")
    out, _ = sdpa_attention_forward(module, query, key, value, None, **options)
    return out, None


def _is_causal(
    *,
    config: Any,
    device: torch.device | str = "cpu",
    mask_function: Callable[..., Any] = causal_mask_function,
    **_: Any,
) -> Tensor:
    """Tell whether a mask is the causal one, (1, 1, 1, 1) bool, by the rows of it for the middle and last token."""
    tokens = torch.arange(config.get_text_config().max_position_embeddings, device=device)
    first = tokens[0]
    queries = (tokens[len(tokens) // 2], tokens[-1])
    same = torch.stack([(mask_function(first, first, q, tokens) == (tokens <= q)).all() for q in queries])
    return same.all().view(1, 1, 1, 1)


for _name, _attention, _mask in (
    (GROUPED, _grouped_attention, sdpa_mask),
    (SEGMENTED, _segmented_attention, sdpa_mask),
    (PLAIN, _plain_attention, _is_causal),
):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, _mask)

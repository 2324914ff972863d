"""A pass of a Hugging Face model over several tokens per row, as many as each row has, to verify guesses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from refinerl.engines.attention import GROUPED, SEGMENTED
from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.kv_cache import PlacedCache

MASKED = frozenset({"sdpa", GROUPED, SEGMENTED, "eager"})
"""The kinds of attention that take a mask of queries and keys."""


def fixed_cost(model: PreTrainedModel) -> float:
    """Estimate the cost of a pass apart from its tokens, in costs of a token.

    On a CPU, reading the weights costs as much as the products of some 16 tokens, and Python's share of a pass as much
    as 2·10⁷ products of a weight. A GPU has time for hundreds of tokens while it reads its weights.
    """
    return 16 + 2e7 / model.num_parameters() if model.device.type == "cpu" else 512.0


def next_logits(
    model: PreTrainedModel, cache: PlacedCache, tokens: Sequence[Sequence[int]], starts: Sequence[int]
) -> Tensor:
    """Compute the logits after each token.

    Args:
        model: in evaluation mode.
        cache: holds what comes before; this pass's keys and values are added to it.
        tokens: token ids of each row, at least one.
        starts: position of the first of them in its row.

    Returns:
        (rows, most tokens of a row, V); behind a row's last token they mean nothing.
    """
    width = max(map(len, tokens))
    ids, positions, columns = [], [], []
    for row, start in zip(tokens, starts, strict=True):
        last, padding = start + len(row) - 1, width - len(row)
        ids.append([*row, *[row[-1]] * padding])
        positions.append([*range(start, last + 1), *[last] * padding])
        columns.append([*range(start, last + 1), *[cache.capacity] * padding])
    device = model.device
    place = torch.tensor(positions, device=device)
    end = max(start + len(row) for row, start in zip(tokens, starts, strict=True))
    cache.place(torch.tensor(columns, device=device), end)
    logits: Tensor = model(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=_masks(model, place, cache.length),
        position_ids=place,
        **cache_argument(model, cache),
        use_cache=True,
    ).logits
    return logits


def _masks(model: PreTrainedModel, positions: Tensor, end: int) -> Tensor | dict[str, Tensor]:
    """Let each query see the columns up to its own position, or in layers with a window the last ones of these.

    A dictionary by the kind of layer where a model has both kinds.
    """
    columns = torch.arange(end, device=positions.device)
    places = positions[:, None, :, None]
    full = columns <= places
    window, kinds = _window(model)
    if window is None:
        return _for_attention(model, full)
    sliding = full & (columns > places - window)
    if len(kinds) < 2:
        return _for_attention(model, sliding)
    return {"full_attention": _for_attention(model, full), "sliding_attention": _for_attention(model, sliding)}


def _window(model: PreTrainedModel) -> tuple[int | None, set[str]]:
    """Return the window of a model's attention, None if no layer has one, and the kinds of its layers."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    return None if kinds == {"full_attention"} else window, kinds


def takes_columns(model: PreTrainedModel) -> bool:
    """Tell whether all of a model's layers take a mask of the columns that a token sees, (rows, 1, 1, columns) bool.

    Otherwise the model makes its masks in each pass, from the padding.
    """
    attention = model.config._attn_implementation
    return attention in MASKED - {"eager"} and _window(model)[0] is None and fault(model) is None


def _for_attention(model: PreTrainedModel, visible: Tensor) -> Tensor:
    """Return a mask (rows, 1, queries, columns) as the model's attention takes it: eager attention adds it."""
    if model.config._attn_implementation != "eager":
        return visible
    return torch.zeros_like(visible, dtype=model.dtype).masked_fill_(~visible, torch.finfo(model.dtype).min)


@torch.no_grad()
def fault(model: PreTrainedModel) -> str | None:
    """Compare passes over several tokens with a plain pass; return the reason if a model cannot verify guesses."""
    attention = model.config._attn_implementation
    if attention not in MASKED:
        return f"its attention is {attention!r}, which takes no mask of queries and keys"
    config = model.config.get_text_config()
    ids = [(1 + 7 * i) % config.vocab_size for i in range(12)]
    try:
        plain = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
        cache = PlacedCache(config.num_hidden_layers, 2, len(ids))
        first = next_logits(model, cache, [ids[:7], ids[:3]], [0, 0]).float()
        # The first row's tokens from 5 on are written again, as after a wrong guess.
        second = next_logits(model, cache, [ids[5:], ids[3:5]], [5, 3]).float()
        # The row that is furthest has the fewest tokens; a model may take the last columns for all queries' own.
        third = next_logits(model, cache, [ids[11:], ids[5:10]], [11, 5]).float()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        return f"a pass over several tokens fails ({type(error).__name__}: {reason:.200})"
    pairs = [(first[0], plain[:7]), (first[1, :3], plain[:3]), (second[0], plain[5:]), (second[1, :2], plain[3:5])]
    pairs += [(third[0, :1], plain[11:]), (third[1], plain[5:10])]
    off = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    exact = model.dtype in (torch.float32, torch.float64)
    if not off <= (1e-3 if exact else 0.1) * max(float(plain.abs().max()), 1.0):
        return f"a pass over several tokens changes its logits by {off:.2g}"
    return None

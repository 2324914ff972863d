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

_LIMITS = ("attention_chunk_size", "index_topk", "index_topk_blocks")
"""Limits of attention that no mask here has, by their names in configurations."""


def fixed_cost(model: PreTrainedModel) -> float:
    """Estimate the cost of a pass apart from its tokens, in costs of a token.

    On a CPU, reading the weights costs as much as the products of some 16 tokens, and Python's share of a pass as much
    as 2·10⁷ products of a weight. A GPU has time for hundreds of tokens while it reads its weights.
    """
    return 16 + 2e7 / model.num_parameters() if model.device.type == "cpu" else 512.0


class Passes:
    """Passes over several tokens per row, after those that a cache holds.

    Args:
        model: in evaluation mode.
        cache: gets the keys and values of each pass.
    """

    def __init__(self, model: PreTrainedModel, cache: PlacedCache) -> None:
        self._model, self._cache = model, cache
        config = model.config.get_text_config()
        self._kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        self._window = None if self._kinds == {"full_attention"} else window
        self._added = model.config._attn_implementation == "eager"

    def next_logits(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """Compute the logits after each token, (rows, most tokens of a row, V).

        Args:
            tokens: token ids of each row, at least one.
            starts: position of the first of them in its row.

        Behind a row's last token the logits mean nothing.
        """
        width, spare, device = max(map(len, tokens)), self._cache.capacity, self._model.device
        ids, positions, columns = [], [], []
        for row, start in zip(tokens, starts, strict=True):
            last, padding = start + len(row) - 1, width - len(row)
            ids.append([*row, *[row[-1]] * padding])
            positions.append([*range(start, last + 1), *[last] * padding])
            columns.append([*range(start, last + 1), *[spare] * padding])
        place = torch.tensor(positions, device=device)
        end = max(start + len(row) for row, start in zip(tokens, starts, strict=True))
        self._cache.place(place if width == 1 else torch.tensor(columns, device=device), end)
        logits: Tensor = self._model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=self._masks(place, end),
            position_ids=place,
            **cache_argument(self._model, self._cache),
            use_cache=True,
        ).logits
        return logits

    def _masks(self, positions: Tensor, end: int) -> Tensor | dict[str, Tensor]:
        """Let each query see the columns up to its own position, or in layers with a window the last ones of these.

        A dictionary by the kind of layer where a model has both kinds.
        """
        columns = torch.arange(end, device=positions.device)
        places = positions[:, None, :, None]
        full = columns <= places
        if self._window is None:
            return self._for_attention(full)
        sliding = full & (columns > places - self._window)
        if len(self._kinds) < 2:
            return self._for_attention(sliding)
        return {"full_attention": self._for_attention(full), "sliding_attention": self._for_attention(sliding)}

    def _for_attention(self, visible: Tensor) -> Tensor:
        """Return a mask (rows, 1, queries, columns) as the model's attention takes it: eager attention adds it."""
        if not self._added:
            return visible
        kind = self._model.dtype
        return torch.zeros_like(visible, dtype=kind).masked_fill_(~visible, torch.finfo(kind).min)


@torch.no_grad()
def fault(model: PreTrainedModel) -> str | None:
    """Compare passes over several tokens with a plain pass; return the reason if a model cannot verify guesses."""
    attention = model.config._attn_implementation
    if attention not in MASKED:
        return f"its attention is {attention!r}, which takes no mask of queries and keys"
    config = model.config.get_text_config()
    if limits := [name for name in _LIMITS if getattr(config, name, None)]:
        return f"its attention is limited ({', '.join(limits)})"
    ids = [(1 + 7 * i) % config.vocab_size for i in range(12)]
    try:
        plain = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
        cache = PlacedCache(config.num_hidden_layers, 2, len(ids))
        passes = Passes(model, cache)
        first = passes.next_logits([ids[:7], ids[:3]], [0, 0]).float()
        # The first row's tokens from 5 on are written again, as after a wrong guess.
        second = passes.next_logits([ids[5:], ids[3:5]], [5, 3]).float()
        # The row that is furthest has the fewest tokens; a model may take the last columns for all queries' own.
        third = passes.next_logits([ids[11:], ids[5:10]], [11, 5]).float()
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

"""Keys and values of a batch during decoding, updated in place.

transformers' own cache concatenates the keys and values of every layer at each token, which on a CPU takes more time
than the matrix products. This cache is allocated once at its final size. A new token is written in place, a finished
row is overwritten by the last one, and columns that are padding in every remaining row are left out of the view.

`DecodingCache` is for rows that all grow by one token a pass, `PlacedCache` for rows that grow by different numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache


class DecodingCache(Cache):  # type: ignore[misc]  # transformers is untyped to mypy
    """Left-padded keys and values of `rows` samples, of which columns `start` to `length` are in view.

    `fill` takes the prefilled prompts; the model's attention layers add one column a step.
    """

    def __init__(self, layers: int, rows: int, length: int, capacity: int) -> None:
        super().__init__(layers=[_Layer(self) for _ in range(layers)])
        self.rows = rows
        self.start = 0
        self.length = length
        self.capacity = capacity

    def fill(
        self, prefilled: DynamicCache, slots: Tensor, lengths: Sequence[int], destinations: Sequence[Sequence[int]]
    ) -> None:
        """Copy prefilled prompts to the rows of their samples.

        Args:
            prefilled: keys and values of B rows of W tokens.
            slots: (P, most tokens of a prompt) int64, which of the B · W tokens each prompt's are.
            lengths: tokens of each prompt.
            destinations: rows of each prompt.
        """
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            layer.allocate(source.keys, source.values)
        pairs = [(i, row) for i, rows in enumerate(destinations) for row in rows]
        prompt, row = torch.tensor(pairs).T
        many = torch.tensor(lengths)[prompt]
        row = row.repeat_interleave(many)
        token = torch.arange(len(row)) - (many.cumsum(0) - many).repeat_interleave(many)
        slot = slots[prompt.repeat_interleave(many), token]
        column = token + self._begin(many).repeat_interleave(many)
        device = prefilled.layers[0].keys.device
        row, column, slot = torch.stack([row, column, slot]).to(device)
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            for mine, theirs in ((layer.keys, source.keys), (layer.values, source.values)):
                mine[row, :, column] = theirs.transpose(1, 2).flatten(0, 1).index_select(0, slot)

    def _begin(self, lengths: Tensor) -> Tensor:
        """Return the first columns of prompts of these lengths, which end at `length`."""
        return self.length - lengths

    def move(self, source: int, destination: int) -> None:
        """Overwrite the row `destination` by the row `source`."""
        for layer in self.layers:
            columns = slice(self.start, self.length)
            layer.keys[destination, :, columns] = layer.keys[source, :, columns]
            layer.values[destination, :, columns] = layer.values[source, :, columns]

    def advance(self) -> None:
        """Include the column that all layers have just written."""
        self.length += 1


class PlacedCache(DecodingCache):
    """Keys and values of `rows` samples, each position in the column of its number; columns from 0 are in view.

    A pass may read several tokens per row, and different numbers of them. Tokens that turn out to be wrong need no
    removal: queries see no column behind their own position, and the row's next tokens overwrite them.
    """

    columns: Tensor  # (rows, n) int64, the columns of the pass's tokens; padding has the spare column, `capacity`

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        super().__init__(layers, rows, 0, capacity)
        self.layers = [_PlacedLayer(self) for _ in range(layers)]

    def _begin(self, lengths: Tensor) -> Tensor:
        """Return the first columns of prompts, 0, and have them in view: a row that moves keeps all of its prompt."""
        self.length = max(self.length, int(lengths.max()))
        return torch.zeros_like(lengths)

    def place(self, columns: Tensor, end: int) -> None:
        """Set the columns of the next pass's tokens, (rows, n), and the end of the view, behind all but the spare."""
        self.columns, self.length = columns, end


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """The buffers of one layer, (rows, heads, capacity, width)."""

    is_sliding = False
    is_compileable = False
    is_croppable = False
    is_initialized: bool

    def __init__(self, cache: DecodingCache) -> None:
        super().__init__()
        self.cache = cache

    def allocate(self, keys: Tensor, values: Tensor) -> None:
        """Allocate the buffers for keys and values like these, (B, heads, n, width), unless they exist."""
        if not self.is_initialized:
            self.keys, self.values = (
                like.new_empty((self.cache.rows, like.shape[1], self.cache.capacity, like.shape[3]))
                for like in (keys, values)
            )
            # Padding is masked, but a weight of 0 times uninitialized memory may still be NaN.
            self.keys[:, :, : self.cache.length] = 0
            self.values[:, :, : self.cache.length] = 0
            self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.allocate(key_states, value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new column and return all columns in view."""
        self.allocate(key_states, value_states)
        cache, end = self.cache, self.cache.length + key_states.shape[2]
        self.keys[: cache.rows, :, cache.length : end] = key_states
        self.values[: cache.rows, :, cache.length : end] = value_states
        return self.keys[: cache.rows, :, cache.start : end], self.values[: cache.rows, :, cache.start : end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.length - self.cache.start

    def get_max_length(self) -> int:
        return self.cache.capacity


class _PlacedLayer(_Layer):
    """The buffers of one layer, with a spare column at the end."""

    cache: PlacedCache

    def allocate(self, keys: Tensor, values: Tensor) -> None:
        """Allocate the buffers for keys and values like these, (B, heads, n, width), unless they exist."""
        if not self.is_initialized:
            self.keys, self.values = (
                like.new_zeros((self.cache.rows, like.shape[1], self.cache.capacity + 1, like.shape[3]))
                for like in (keys, values)
            )
            self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write each token into its column and return all columns in view."""
        self.allocate(key_states, value_states)
        cache = self.cache
        rows = torch.arange(cache.rows, device=key_states.device)[:, None]
        self.keys[rows, :, cache.columns] = key_states.transpose(1, 2)
        self.values[rows, :, cache.columns] = value_states.transpose(1, 2)
        return self.keys[: cache.rows, :, : cache.length], self.values[: cache.rows, :, : cache.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.length, 0

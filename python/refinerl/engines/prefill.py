"""Keys and values of prompts, computed once per prompt and copied to all of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.samples import Sample


def prefill(
    model: PreTrainedModel,
    cache: DecodingCache,
    rows: Sequence[Sample],
    prompts: Sequence[Sequence[int]],
    padding: int,
    most: int,
) -> None:
    """Fill the cache of these rows with their prompts, each without its last token, which the first pass reads.

    Args:
        model: computes the keys and values.
        cache: empty, with a row for each sample.
        rows: the samples.
        prompts: token ids of all prompts.
        padding: a token id.
        most: tokens, padding included, that go through the model at a time.
    """
    where: dict[int, list[int]] = {}
    for row, s in enumerate(rows):
        where.setdefault(s.prompt, []).append(row)
    for group in _groups([i for i in where if len(prompts[i]) > 1], prompts, most):
        # Padded at the right: causal attention needs no mask then, and positions count from 0.
        width = len(prompts[group[0]]) - 1
        ids = torch.full((len(group), width), padding)
        for i, index in enumerate(group):
            ids[i, : len(prompts[index]) - 1] = torch.tensor(prompts[index][:-1])
        prefilled = DynamicCache()
        trunk = model.base_model
        trunk(input_ids=ids.to(model.device), **cache_argument(trunk, prefilled), use_cache=True)
        cache.fill(prefilled, [len(prompts[i]) - 1 for i in group], [where[i] for i in group])


def _groups(order: Sequence[int], prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Group the prompts, longest first, so that each group's padded size is within `most`."""
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * len(prompts[group[0]]) > most:
            yield group
            group = []
        group.append(i)
    if group:
        yield group

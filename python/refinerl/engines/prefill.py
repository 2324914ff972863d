"""Keys and values of prompts, computed once per prompt and copied to all of its samples.

Prompts may begin alike, as those of a refiner do that holds several responses to a problem. A model that computes
prefixes once (`refinerl.engines.packing`) takes such prompts as a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from refinerl.engines.attention import SEGMENTED
from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.packing import tree_states
from refinerl.engines.samples import Sample
from refinerl.kernels.prefixes import pays, prefix_order, prefix_tree


def prefill(
    model: PreTrainedModel,
    cache: DecodingCache,
    rows: Sequence[Sample],
    prompts: Sequence[Sequence[int]],
    padding: int,
    most: int,
    *,
    shared: bool = False,
) -> None:
    """Fill the cache of these rows with their prompts, each without its last token, which the first pass reads.

    Args:
        model: computes the keys and values.
        cache: empty, with a row for each sample.
        rows: the samples.
        prompts: token ids of all prompts.
        padding: a token id.
        most: tokens, padding included, that go through the model at a time.
        shared: compute prefixes that prompts share once, where that pays; the model must be able to.
    """
    where: dict[int, list[int]] = {}
    for row, s in enumerate(rows):
        where.setdefault(s.prompt, []).append(row)
    left = [i for i in where if len(prompts[i]) > 1]
    if shared and len(left) > 1:
        left = _fill_shared(model, cache, where, left, prompts, most)
    for group in _groups(left, prompts, most):
        # Padded at the right: causal attention needs no mask then, and positions count from 0.
        ids, lengths = _padded(group, prompts, padding)
        prefilled = DynamicCache()
        trunk = model.base_model
        trunk(input_ids=ids.to(model.device), **cache_argument(trunk, prefilled), use_cache=True)
        cache.fill(prefilled, torch.arange(ids.numel()).view(ids.shape), lengths.tolist(), [where[i] for i in group])


def _fill_shared(
    model: PreTrainedModel,
    cache: DecodingCache,
    where: dict[int, list[int]],
    order: Sequence[int],
    prompts: Sequence[Sequence[int]],
    most: int,
) -> list[int]:
    """Fill the cache with prompts that share enough; return the others, in the given order."""
    config = model.config
    attention = config._attn_implementation
    done: set[int] = set()
    config._attn_implementation = SEGMENTED
    try:
        for group in _neighbours(order, prompts, most):
            ids, lengths = _padded(group, prompts, 0)
            tree = prefix_tree(ids, lengths)
            if not pays(ids.numel(), len(tree), len(ids)):
                continue
            prefilled = DynamicCache()
            tree_states(model.base_model, tree, cache=prefilled)
            cache.fill(prefilled, tree.slots, lengths.tolist(), [where[i] for i in group])
            done.update(group)
    finally:
        config._attn_implementation = attention
    return [i for i in order if i not in done]


def _neighbours(order: Sequence[int], prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Group prompts that begin alike, so that each group's tree has at most `most` tokens."""
    ids, lengths = _padded(order, prompts, 0)
    places, shared = prefix_order(ids, lengths)
    group: list[int] = []
    size = 0
    for place, common in zip(places.tolist(), shared.tolist(), strict=True):
        length = int(lengths[place])
        if group and size + length - common > most:
            yield group
            group, size = [], 0
        size += length - common if group else length
        group.append(order[place])
    yield group


def _padded(group: Sequence[int], prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Return prompts without their last token, padded at the right, and their lengths."""
    rows = [torch.tensor(prompts[i][:-1]) for i in group]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    return padded, torch.tensor([len(row) for row in rows])


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

"""Keys and values of prompts, computed once per prompt and copied to all of its samples.

Prompts may begin alike, as those of a refiner do that holds several responses to a problem. A model that computes
prefixes once (`refinerl.engines.packing`) takes such prompts as a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from refinerl.engines.attention import segmented
from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.packing import tree_states
from refinerl.engines.samples import Sample
from refinerl.kernels.prefixes import PrefixTree, pays, prefix_order, prefix_tree


class Prompts:
    """Prompts without their last token, which the first pass over a sample reads.

    Their keys and values are computed when a sample needs them, and kept until its last one has them. Some of the next
    prompts are computed at the same time, so that a pass is not for one alone.

    Args:
        model: computes the keys and values.
        prompts: token ids of all prompts.
        queue: the samples in the order in which they begin, those of the longest prompts first.
        padding: a token id.
        most: tokens, padding included, that go through the model at a time.
        ahead: tokens of prompts, padding included, that are computed before a sample needs them.
        shared: compute prefixes that prompts share once, where that pays; the model must be able to.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        queue: Sequence[Sample],
        padding: int,
        most: int,
        *,
        ahead: int = 0,
        shared: bool = False,
    ) -> None:
        self._model, self._prompts = model, prompts
        self._padding, self._most, self._ahead, self._shared = padding, most, ahead, shared
        self._left = Counter(s.prompt for s in queue if s.prompt_length > 1)
        self._order = list(self._left)
        self._known = 0
        self._held: dict[int, _Held] = {}

    def fill(self, cache: DecodingCache, rows: Sequence[int], samples: Sequence[Sample]) -> None:
        """Fill these rows of the cache with the prompts of the samples, the next ones of the queue."""
        where: dict[int, list[int]] = {}
        for row, s in zip(rows, samples, strict=True):
            if s.prompt_length > 1:
                where.setdefault(s.prompt, []).append(row)
        new = [prompt for prompt in where if prompt not in self._held]
        self._copy(cache, [self._held[prompt] for prompt in where if prompt in self._held], where)
        for group, tree in self._grouped(new):
            # Copied before the next pass: all of them together may be as large as the cache.
            self._copy(cache, self._pass(group, tree), where)
        self._known += len(new)
        if new:
            self._compute_ahead()

    def _copy(self, cache: DecodingCache, known: Iterable[_Held], where: Mapping[int, Sequence[int]]) -> None:
        """Copy prompts to their rows, and hold those that other samples need later."""
        sources: dict[int, list[_Held]] = {}
        for held in known:
            sources.setdefault(id(held.prefilled), []).append(held)
        for group in sources.values():
            slots = torch.nn.utils.rnn.pad_sequence([held.slots for held in group], batch_first=True)
            lengths = [len(held.slots) for held in group]
            cache.fill(group[0].prefilled, slots, lengths, [where[held.prompt] for held in group])
            for held in group:
                self._held[held.prompt] = held
                self._left[held.prompt] -= len(where[held.prompt])
                if not self._left[held.prompt]:
                    del self._held[held.prompt]

    def _compute_ahead(self) -> None:
        """Compute the next prompts, which share no pass with needed ones: a pass is held until its last one is read."""
        left = self._order[self._known :]
        count = min(len(left), self._ahead // len(self._prompts[left[0]])) if left else 0
        for group, tree in self._grouped(left[:count]):
            self._held |= {held.prompt: held for held in self._pass(group, tree)}
        self._known += count

    def _grouped(self, order: Sequence[int]) -> Iterator[tuple[list[int], PrefixTree | None]]:
        """Group prompts for passes: those that begin alike, with their tree, where it pays, the others by length."""
        done: set[int] = set()
        for group in _neighbours(order, self._prompts, self._most) if self._shared and len(order) > 1 else ():
            ids, lengths = _padded(group, self._prompts, self._padding)
            tree = prefix_tree(ids, lengths)
            if len(group) > 1 and pays(ids.numel(), len(tree), len(group)):
                yield group, tree
                done.update(group)
        for group in _groups([i for i in order if i not in done], self._prompts, self._most):
            yield group, None

    def _pass(self, group: Sequence[int], tree: PrefixTree | None) -> Iterator[_Held]:
        ids, lengths = _padded(group, self._prompts, self._padding)
        prefilled = DynamicCache()
        trunk = self._model.base_model
        if tree is not None:
            slots = tree.slots
            with segmented(self._model):
                tree_states(trunk, tree, cache=prefilled)
        else:
            slots = torch.arange(ids.numel()).view(ids.shape)
            # Padded at the right: causal attention needs no mask then, and positions count from 0.
            trunk(input_ids=ids.to(self._model.device), **cache_argument(trunk, prefilled), use_cache=True)
        for prompt, length, row in zip(group, lengths.tolist(), slots, strict=True):
            yield _Held(prompt, prefilled, row[:length])


class _Held(NamedTuple):
    """A prompt whose keys and values are known."""

    prompt: int
    prefilled: DynamicCache
    slots: Tensor  # (n,) int64, its tokens among those of `prefilled`


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

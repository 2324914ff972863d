"""Prompts that begin alike are computed once before generation, with the same completions."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from families import build
from refinerl.engines import prefill
from refinerl.engines.attention import SEGMENTED
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Completion, Sampling
from tiny import tiny_model, tiny_tokenizer

SYSTEM = "Correct the program.\n"
PROMPTS = (
    *(f"{SYSTEM}def f(x):\n    return x + {i}\n" for i in range(5)),
    f"{SYSTEM}print(1)",
    f"{SYSTEM}def f(x):\n    return x + 1\n",  # twice
    f"{SYSTEM}def f(x):\n",  # as others begin
    "a",  # one token
    "zz, which shares nothing with the others",
)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(tiny_tokenizer())


@contextmanager
def sharing(model: PreTrainedModel) -> Iterator[None]:
    """The attention that a network gives its model while prefixes are shared."""
    before = model.config._attn_implementation
    model.config._attn_implementation = SEGMENTED
    try:
        yield
        assert model.config._attn_implementation == SEGMENTED
    finally:
        model.config._attn_implementation = before


@contextmanager
def counting(model: PreTrainedModel) -> Iterator[list[int]]:
    """The numbers of tokens, padding included, of passes over more than one token a row."""
    counts: list[int] = []

    def count(_: Any, arguments: tuple[Any, ...]) -> None:
        if arguments[0].shape[1] > 1:
            counts.append(arguments[0].numel())

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def write(generator: TransformersGenerator, prompts: Any, *, n: int = 2, **options: Any) -> list[list[Completion]]:
    seeds = [[1000 * i + j for j in range(n)] for i in range(len(prompts))]
    return generator.generate(prompts, Sampling(max_tokens=16, n=n, seeds=seeds), **options)


@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "with drafts"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_completions_are_the_same_and_a_prefix_is_computed_once(
    tokenizer: ChatTokenizer, family: str, drafts: bool
) -> None:
    model = (tiny_model() if family == "llama" else build(family)).double()
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    options: dict[str, Any] = {"drafts": [prompt[-20:] for prompt in prompts]} if drafts else {}
    generator = TransformersGenerator(model, tokenizer)
    write(generator, prompts, **options)  # probes
    with counting(model) as alone:
        wanted = write(generator, prompts, **options)
    with sharing(model), counting(model) as shared:
        found = write(generator, prompts, **options)
    for mine, theirs in zip(chain(*found), chain(*wanted), strict=True):
        assert mine.token_ids == theirs.token_ids
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-6)
    distinct = {p[: i + 1] for prompt in prompts for p in [tuple(prompt[:-1])] for i in range(len(p))}
    assert alone[0] == 9 * max(len(prompt) - 1 for prompt in prompts)
    assert shared[0] == len(distinct)


@pytest.mark.parametrize("most", [1, 30, 60, 150])
def test_a_pass_has_no_more_tokens_than_it_may(tokenizer: ChatTokenizer, most: int) -> None:
    model = tiny_model().double()
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    wanted = write(TransformersGenerator(model, tokenizer), prompts)
    generator = TransformersGenerator(model, tokenizer, max_prefill_tokens=most)
    write(generator, prompts)  # probes
    with sharing(model), counting(model) as counts:
        found = write(generator, prompts)
    assert [[c.token_ids for c in group] for group in found] == [[c.token_ids for c in group] for group in wanted]
    assert max(counts) <= max(most, max(map(len, prompts)) - 1)


def test_siblings_are_in_one_tree_though_others_have_their_lengths(tokenizer: ChatTokenizer) -> None:
    """A refiner's prompts of a step: what begins alike has different lengths, and not all of it fits one pass."""
    model = tiny_model()
    prompts = [tokenizer.encode(f"{stem * 30}{'y' * length}") for length in (1, 2, 3, 4) for stem in "abc"]
    generator = TransformersGenerator(model, tokenizer, max_prefill_tokens=50)
    write(generator, prompts)  # probes
    with sharing(model), counting(model) as counts:
        write(generator, prompts, n=1)
    assert counts == [len(tokenizer.encode(f"{stem * 30}yyyy")) - 1 for stem in "abc"]


def test_prompts_that_share_nothing_are_padded(tokenizer: ChatTokenizer) -> None:
    model = tiny_model()
    prompts = [tokenizer.encode(c * 12) for c in "abcd"]
    generator = TransformersGenerator(model, tokenizer)
    write(generator, prompts)  # probes
    with sharing(model), counting(model) as counts:
        write(generator, prompts)
    assert counts == [4 * 11]


@pytest.mark.parametrize("rows", [8, 16])
def test_prompts_are_copied_before_the_next_pass(
    tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Beside the cache and a pass, memory holds no more prompts than may be computed ahead: a quarter of the cache."""
    known: list[weakref.ref[DynamicCache]] = []

    class Watched(DynamicCache):
        def __init__(self) -> None:
            super().__init__()
            known.append(weakref.ref(self))

    held: list[int] = []

    def see(*_: Any) -> None:
        layers = [cache.layers[0] for reference in known if (cache := reference()) is not None and cache.layers]
        held.append(sum(layer.keys.shape[0] * layer.keys.shape[2] for layer in layers))

    monkeypatch.setattr(prefill, "DynamicCache", Watched)
    generator = TransformersGenerator(tiny_model(), tokenizer, max_rows=rows, max_prefill_tokens=42)
    generator.model.get_input_embeddings().register_forward_pre_hook(see)
    prompts = [tokenizer.encode(f"{c}, {'x' * 18}") for c in "abcdefghijklmnop"]
    write(generator, prompts, n=1)
    assert len(known) >= 8  # passes over prompts, two at a time
    assert max(held) <= rows * (len(prompts[0]) + 16) // 4

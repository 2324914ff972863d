"""A finished sample makes room for the next one: as many rows as may be written at a time, and few passes."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from transformers import PreTrainedModel

from families import build
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Completion, Sampling
from tiny import tiny_model, tiny_tokenizer

PROMPTS = ("a", "What is 1 + 1?", "def f(x):\n    return", "hello " * 9, "zz", "hello", "b")


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(tiny_tokenizer())


def request(n: int = 3, **options: Any) -> Sampling:
    seeds = [[1000 * i + j for j in range(n)] for i in range(len(PROMPTS))]
    return Sampling(max_tokens=40, n=n, seeds=seeds, temperature=1.5, **options)


def write(model: PreTrainedModel, tokenizer: ChatTokenizer, rows: int, **options: Any) -> tuple[Any, list[int], int]:
    """Completions, the rows of each pass over single tokens, and the number of passes."""
    generator = TransformersGenerator(model, tokenizer, max_rows=rows)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    generator.generate(prompts[:1], Sampling(max_tokens=1, temperature=0.0))  # probes
    sizes: list[int] = []

    def see(_: Any, arguments: tuple[Any, ...]) -> None:
        sizes.append(len(arguments[0]))

    handle = model.get_input_embeddings().register_forward_pre_hook(see)
    before = generator.decoded
    found = generator.generate(prompts, request(), **options)
    handle.remove()
    return found, sizes, (generator.decoded - before).passes


def passes(completions: list[list[Completion]], prompts: list[tuple[int, ...]], rows: int) -> int:
    """The number of passes if each row takes the next sample as soon as it can, longest prompts first."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    ends = [0] * rows
    for length in (len(c.token_ids) for i in order for c in completions[i]):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


@pytest.mark.parametrize("rows", [1, 2, 5, 21, 100])
def test_no_row_waits_for_others(tokenizer: ChatTokenizer, rows: int) -> None:
    model = tiny_model().double()
    found, sizes, count = write(model, tokenizer, rows)
    wanted, _, _ = write(model, tokenizer, 100)
    assert [[c.token_ids for c in group] for group in found] == [[c.token_ids for c in group] for group in wanted]
    assert count == passes(found, [tokenizer.encode(text) for text in PROMPTS], rows)
    assert max(sizes) <= max(rows, len(PROMPTS))  # of a pass over prompts: each of them


@pytest.mark.parametrize("family", ["mistral", "gemma3", "eager", "gpt2"])
def test_families_with_windows_and_other_attention(tokenizer: ChatTokenizer, family: str) -> None:
    model = build(family).double()
    found, wanted = (write(model, tokenizer, rows)[0] for rows in (4, 100))
    assert [[c.token_ids for c in group] for group in found] == [[c.token_ids for c in group] for group in wanted]


def test_drafts_of_samples_that_begin_later(tokenizer: ChatTokenizer) -> None:
    model = tiny_model().double()
    plain, _, count = write(model, tokenizer, 4)
    drafts = [group[0].token_ids for group in plain]
    found, _, fewer = write(model, tokenizer, 4, drafts=drafts)
    assert [[c.token_ids for c in group] for group in found] == [[c.token_ids for c in group] for group in plain]
    assert fewer < count


def test_nothing_to_write(tokenizer: ChatTokenizer) -> None:
    generator = TransformersGenerator(tiny_model(), tokenizer)
    assert generator.generate([], Sampling(max_tokens=4, n=2, seeds=[])) == []

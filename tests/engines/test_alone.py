"""Completions of random requests against each sample alone: whole passes without a cache, masks, batches or drafts.

The model is in float64, so that rounding decides nothing.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM, PreTrainedModel

from families import FAMILIES, build
from refinerl.engines.attention import SEGMENTED
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Completion, Sampling
from tiny import tiny_model, tiny_tokenizer

CONTEXT = 64
SLACK = 1e-4
"""Of a number between 0 and 1, since tokens are drawn from logits in float32."""


class Blind(LlamaForCausalLM):
    """Ignores masks of four dimensions, so its completions are written in batches."""

    def forward(self, attention_mask: Any = None, **options: Any) -> Any:
        four = torch.is_tensor(attention_mask) and attention_mask.dim() == 4
        return super().forward(attention_mask=None if four else attention_mask, **options)


def make(family: str) -> PreTrainedModel:
    match family:
        case "blind":
            blind = Blind(tiny_model().config)
            blind.load_state_dict(tiny_model().state_dict())
            return blind.double().eval()
        case "shared":
            model = tiny_model().double()
            model.config._attn_implementation = SEGMENTED
            return model
    return build(family).double().eval()


def random_request(rng: random.Random) -> tuple[list[tuple[int, ...]], Sampling]:
    """Prompts of which some begin alike, have one token, or leave little room; several samples of each."""
    stem = [rng.randrange(4, 260) for _ in range(CONTEXT)]
    prompts = []
    for _ in range(rng.randrange(1, 9)):
        length = rng.choice((1, 2, 3, 9, 20, 40, CONTEXT - 1))
        same = rng.randrange(length + 1)
        prompts.append((*stem[:same], *(rng.randrange(4, 260) for _ in range(length - same))))
    n = rng.randrange(1, 5)
    seeds = [[rng.randrange(2**63) for _ in range(n)] for _ in prompts]
    return prompts, Sampling(
        rng.choice((1, 2, 12, 30)),
        rng.choice((0.0, 0.7, 1.0, 1.6)),
        n=n,
        seeds=seeds,
        top_k=rng.choice((0, 0, 3, 100)),
        top_p=rng.choice((1.0, 1.0, 0.6)),
    )


def distribution(logits: NDArray[np.float64], sampling: Sampling) -> NDArray[np.float64]:
    """The chances of the next token."""
    scaled = logits / (sampling.temperature or 1.0)
    chances: NDArray[np.float64] = np.exp(scaled - scaled.max())
    if sampling.temperature:
        order = np.argsort(-chances, kind="stable")
        if sampling.top_k:
            chances[order[sampling.top_k :]] = 0
        if sampling.top_p < 1:
            before = np.cumsum(chances[order]) - chances[order]
            chances[order[before >= sampling.top_p * chances.sum()]] = 0
    return chances / chances.sum()


def check(
    model: PreTrainedModel, prompt: tuple[int, ...], completion: Completion, sampling: Sampling, seed: int, eos: int
) -> None:
    """Draw each token of a completion again, after one pass over all that comes before."""
    ids = completion.token_ids
    limit = min(sampling.max_tokens, CONTEXT - len(prompt))
    assert eos not in ids[:-1]
    assert completion.finish_reason == ("stop" if ids[-1] == eos else "length")
    assert ids[-1] == eos or len(ids) == limit
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1].numpy()
    noise = np.random.Generator(np.random.Philox(key=seed)).random(limit)
    for token, logprob, row, point in zip(ids, completion.logprobs, logits, noise, strict=False):
        chances = distribution(row, sampling)
        if sampling.temperature:
            upper = chances[: token + 1].sum()
            assert upper - chances[token] - SLACK <= point <= upper + SLACK
        else:
            assert row[token] >= row.max() - SLACK
        assert logprob == pytest.approx(np.log(chances[token]), abs=SLACK)


def drafts_of(rng: random.Random, groups: list[list[Completion]]) -> list[list[int]]:
    """Completions with some tokens replaced or dropped, and drafts of nothing."""
    drafts = []
    for group in groups:
        ids = list(rng.choice(group).token_ids)
        for _ in range(len(ids) // 8):
            place = rng.randrange(len(ids))
            ids[place : place + rng.randrange(3)] = [rng.randrange(4, 260) for _ in range(rng.randrange(3))]
        drafts.append(ids if rng.random() < 0.8 else [])
    return drafts


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, "shared", "blind"])
def test_each_sample_is_as_if_alone(family: str) -> None:
    tokenizer, model, rng = ChatTokenizer(tiny_tokenizer()), make(family), random.Random(family)
    alone = tiny_model().double() if family in ("blind", "shared") else make(family)
    generators = [
        TransformersGenerator(
            model, tokenizer, context_length=CONTEXT, max_rows=rows, max_prefill_tokens=most, say=lambda _: None
        )
        for rows, most in ((1, 4096), (3, 50), (5, 150))
    ]
    for generator in generators:
        prompts, sampling = random_request(rng)
        total = len(prompts) * sampling.n * sampling.max_tokens
        done: list[int] = []
        generator.progress = done.append
        found = generator.generate(prompts, sampling)
        assert sum(done) == total
        for prompt, seeds, group in zip(prompts, sampling.seeds, found, strict=True):
            for seed, completion in zip(seeds, group, strict=True):
                check(alone, prompt, completion, sampling, seed, tokenizer.eos_token_id)
        shown = [character for group in found for c in group for character in c.text if character.isascii()]
        stopped = replace(sampling, stop=("never there", rng.choice(shown or ["x"])))
        done.clear()
        seen: dict[tuple[int, int], Completion] = {}
        cut = generator.generate(
            prompts,
            stopped,
            drafts=drafts_of(rng, found),
            finished=lambda prompt, number, c, seen=seen: seen.setdefault((prompt, number), c),
        )
        assert sum(done) == total
        assert seen == {(i, j): c for i, group in enumerate(cut) for j, c in enumerate(group)}
        for before, after in zip(chain(*found), chain(*cut), strict=True):
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
            assert after.logprobs == pytest.approx(before.logprobs[: len(after.logprobs)], abs=SLACK)
            places = [before.text.find(text) for text in stopped.stop if text in before.text]
            assert after.text == (before.text[: min(places)] if places else before.text)
            assert after.finish_reason == ("stop" if places else before.finish_reason)

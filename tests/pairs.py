"""Responses of the miniature with requests to correct them; comparisons of completions that rounding may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from refinerl.data import SHIPPED
from refinerl.data.apps import chat_question, load_problems, official_prompt
from refinerl.engines.models import load_model
from refinerl.engines.sampling import uniforms
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Completion, Sampling, sample_seed
from refinerl.tasks.templates import load_refine_template

LIMIT = 64


@dataclass(frozen=True)
class Pairs:
    """A model with requests to correct its own responses."""

    model: PreTrainedModel
    tokenizer: ChatTokenizer
    requests: list[tuple[int, ...]]
    responses: list[tuple[int, ...]]

    def sampling(self, temperature: float = 0.0, **options: float) -> Sampling:
        """Return a sampling with a seed for each request."""
        seeds = [[sample_seed(0, 1, str(i), 0)] for i in range(len(self.requests))]
        return Sampling(LIMIT, temperature, seeds=seeds, **options)


def miniature_pairs(count: int, dtype: torch.dtype = torch.float32) -> Pairs:
    """Sample responses to the miniature's training problems, eight to each."""
    tokenizer = ChatTokenizer.load(SHIPPED["miniature"].parent / "base")
    model = load_model("miniature").to(dtype)
    problems = load_problems(SHIPPED["miniature"]).problems[: -(-count // 8)]
    prompts = [tokenizer.encode_chat([{"role": "user", "content": official_prompt(each)}]) for each in problems]
    seeds = [[sample_seed(0, 0, each.id, j) for j in range(8)] for each in problems]
    groups = TransformersGenerator(model, tokenizer).generate(prompts, Sampling(LIMIT, n=8, seeds=seeds))
    template = load_refine_template("refine_miniature")
    asked = [
        (template.messages(question=chat_question(problem), response=c.text), c.token_ids)
        for problem, group in zip(problems, groups, strict=True)
        for c in group
    ][:count]
    requests = [tokenizer.encode_chat(messages) for messages, _ in asked]
    return Pairs(model, tokenizer, requests, [ids for _, ids in asked])


def different(ours: Sequence[Sequence[Completion]], theirs: Sequence[Sequence[Completion]]) -> list[int]:
    """Return the indices of the requests whose only completions differ in a token."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    return [i for i, ((mine,), (other,)) in pairs if mine.token_ids != other.token_ids]


def margin(
    model: PreTrainedModel, prompt: Sequence[int], one: Completion, other: Completion, sampling: Sampling, seed: int
) -> float:
    """Return how far the model is from a tie where two completions part: 0 is a tie.

    The difference of the two logits where decoding is greedy, else the distance from the random number to the nearest
    boundary between two tokens in the cumulative distribution (without top_k and top_p), both in float64.
    """
    part = next(i for i, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)) if a != b)
    ids = torch.tensor([[*prompt, *one.token_ids[:part]]])
    with torch.no_grad():
        logits = model.to(torch.float64)(ids).logits[0, -1]
    if sampling.temperature == 0:
        return abs(float(logits[one.token_ids[part]] - logits[other.token_ids[part]]))
    boundaries = (logits / sampling.temperature).softmax(-1).cumsum(-1)
    return float((boundaries - uniforms(seed, part + 1)[part]).abs().min())

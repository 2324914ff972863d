"""Generation on the tiny model: what is sampled depends on the seed alone, and the logprobs are the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Completion, Sampling
from tiny import tiny_model, tiny_tokenizer

PROMPTS = ("a", "What is 1 + 1?", "def f(x):\n    return", "hello " * 9, "zz")


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def generator(tiny_folder: Path, tokenizer: ChatTokenizer) -> TransformersGenerator:
    return TransformersGenerator(load_model(str(tiny_folder)), tokenizer)


def encode(tokenizer: ChatTokenizer, texts: Sequence[str] = PROMPTS) -> list[tuple[int, ...]]:
    return [tokenizer.encode(text) for text in texts]


def sampling(prompts: int, n: int = 3, *, first_seed: int = 0, max_tokens: int = 24, **options: object) -> Sampling:
    seeds = [[first_seed + 1000 * i + j for j in range(n)] for i in range(prompts)]
    return Sampling(max_tokens=max_tokens, n=n, seeds=seeds, **options)


def model_logprobs(
    generator: TransformersGenerator, prompt: Sequence[int], completion: Completion, temperature: float = 1.0
) -> list[float]:
    ids = torch.tensor([[*prompt, *completion.token_ids]])
    with torch.no_grad():
        logprobs = (generator.model(ids).logits[0].double() / temperature).log_softmax(-1)
    return [logprobs[len(prompt) + t - 1, token].item() for t, token in enumerate(completion.token_ids)]


@pytest.mark.slow
def test_same_seed_same_completion_however_batched(
    tiny_folder: Path, generator: TransformersGenerator, tokenizer: ChatTokenizer
) -> None:
    prompts, request = encode(tokenizer), sampling(len(PROMPTS))
    whole = generator.generate(prompts, request)
    ids = [[c.token_ids for c in group] for group in whole]
    for max_rows in (1, 3, 4, 100):
        for max_prefill_tokens in (40, 4096):
            other = TransformersGenerator(
                generator.model, tokenizer, max_rows=max_rows, max_prefill_tokens=max_prefill_tokens
            )
            assert [[c.token_ids for c in g] for g in other.generate(prompts, request)] == ids
    order = [3, 0, 4, 2, 1]
    shuffled = Sampling(max_tokens=24, n=3, seeds=[request.seeds[i] for i in order])
    again = generator.generate([prompts[i] for i in order], shuffled)
    assert [[c.token_ids for c in g] for g in again] == [ids[i] for i in order]
    alone = Sampling(max_tokens=24, n=1, seeds=[[request.seeds[2][1]]])
    assert generator.generate([prompts[2]], alone)[0][0].token_ids == ids[2][1]


def test_completions_are_handed_over_as_soon_as_they_are_written(
    generator: TransformersGenerator, tokenizer: ChatTokenizer
) -> None:
    prompts, request = encode(tokenizer), sampling(len(PROMPTS))
    found: dict[tuple[int, int], Completion] = {}
    before, lengths = generator.decoded, []

    def finished(prompt: int, number: int, completion: Completion) -> None:
        found[prompt, number] = completion
        lengths.append(generator.decoded.passes - before.passes)

    written = generator.generate(prompts, request, finished=finished)
    assert found == {(i, j): c for i, row in enumerate(written) for j, c in enumerate(row)}
    work = generator.decoded - before
    assert work.tokens == sum(len(c.token_ids) for c in found.values())
    assert lengths == [len(c.token_ids) for c in found.values()]
    assert work.passes == max(lengths)


def test_other_seed_other_completion(generator: TransformersGenerator, tokenizer: ChatTokenizer) -> None:
    prompts = encode(tokenizer)
    one = generator.generate(prompts, sampling(len(prompts)))
    two = generator.generate(prompts, sampling(len(prompts), first_seed=7))
    assert all(a.token_ids != b.token_ids for g, h in zip(one, two, strict=True) for a, b in zip(g, h, strict=True))
    assert len({c.token_ids for c in one[0]}) == 3


def test_a_longer_limit_continues_the_same_completion(
    generator: TransformersGenerator, tokenizer: ChatTokenizer
) -> None:
    prompts = encode(tokenizer)
    short = generator.generate(prompts, sampling(len(prompts), max_tokens=5))
    long = generator.generate(prompts, sampling(len(prompts), max_tokens=40))
    for g, h in zip(short, long, strict=True):
        for a, b in zip(g, h, strict=True):
            assert a.token_ids == b.token_ids[:5]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_logprobs_are_the_models_at_the_sampling_temperature(
    generator: TransformersGenerator, tokenizer: ChatTokenizer, temperature: float
) -> None:
    prompts = encode(tokenizer)
    groups = generator.generate(prompts, sampling(len(prompts), temperature=temperature))
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            expected = model_logprobs(generator, prompt, completion, temperature)
            assert completion.logprobs == pytest.approx(expected, abs=2e-5)


def test_greedy_is_the_argmax_and_needs_no_seeds(generator: TransformersGenerator, tokenizer: ChatTokenizer) -> None:
    prompts = encode(tokenizer)
    groups = generator.generate(prompts, Sampling(max_tokens=12, temperature=0.0))
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        ids = list(prompt)
        for token in completion.token_ids:
            with torch.no_grad():
                assert token == generator.model(torch.tensor([ids])).logits[0, -1].argmax().item()
            ids.append(token)
        assert completion.logprobs == pytest.approx(model_logprobs(generator, prompt, completion), abs=2e-5)


def test_eos_ends_a_completion_and_belongs_to_it(generator: TransformersGenerator, tokenizer: ChatTokenizer) -> None:
    prompts = encode(tokenizer)
    groups = generator.generate(prompts, sampling(len(prompts), n=20, max_tokens=200, temperature=1.5))
    completions = [c for g in groups for c in g]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for completion in completions:
        assert (completion.token_ids[-1] in tokenizer.eos_token_ids) == (completion.finish_reason == "stop")
        assert not tokenizer.eos_token_ids.intersection(completion.token_ids[:-1])
        assert len(completion.logprobs) == len(completion.token_ids) <= 200
        assert completion.text == tokenizer.decode(completion.token_ids)
        if completion.finish_reason == "length":
            assert len(completion.token_ids) == 200


def test_rows_that_outlive_others_keep_their_logprobs(
    generator: TransformersGenerator, tokenizer: ChatTokenizer
) -> None:
    prompts = encode(tokenizer)
    groups = generator.generate(prompts, sampling(len(prompts), n=20, max_tokens=150, temperature=1.5))
    lengths = {len(c.token_ids) for g in groups for c in g}
    assert len(lengths) > 5  # rows were evicted at many different steps
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            assert completion.logprobs == pytest.approx(model_logprobs(generator, prompt, completion, 1.5), abs=1e-4)


def test_context_length_is_respected(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    generator = TransformersGenerator(load_model(str(tiny_folder)), tokenizer, context_length=20)
    prompt = tokenizer.encode("x" * 17)
    tokenizer_without_end = ChatTokenizer(tiny_tokenizer())
    tokenizer_without_end.eos_token_ids = frozenset()
    generator.tokenizer = tokenizer_without_end
    (completion,) = generator.generate([prompt], sampling(1, n=1))[0]
    assert (len(completion.token_ids), completion.finish_reason) == (3, "length")
    for bad in (tokenizer.encode("x" * 20), ()):
        with pytest.raises(ValueError, match=r"prompts\[1\] must have 1 to 19 tokens"):
            generator.generate([prompt, bad], sampling(2, n=1))


def test_seeds_must_match_the_request(generator: TransformersGenerator) -> None:
    with pytest.raises(ValueError, match="seeds must be 2 lists of 2"):
        generator.generate([(5,), (6,)], Sampling(max_tokens=2, n=2, seeds=[[1, 2]]))


def test_stop_string_cuts_text_and_tokens(generator: TransformersGenerator, tokenizer: ChatTokenizer) -> None:
    prompts = encode(tokenizer)
    free = generator.generate(prompts, sampling(len(prompts), max_tokens=60))
    text = free[1][0].text
    stop = text[20:22]
    stopped = generator.generate(prompts, sampling(len(prompts), max_tokens=60, stop=("never there", stop)))
    for g, h in zip(free, stopped, strict=True):
        for a, b in zip(g, h, strict=True):
            if stop in a.text:
                assert b.text == a.text[: a.text.find(stop)]
                assert b.finish_reason == "stop"
                assert a.token_ids[: len(b.token_ids)] == b.token_ids
                assert len(b.logprobs) == len(b.token_ids)
            else:  # in a batch of another size a logprob may round differently
                assert (b.token_ids, b.text, b.finish_reason) == (a.token_ids, a.text, a.finish_reason)
                assert b.logprobs == pytest.approx(a.logprobs, abs=1e-4)
    assert stopped[1][0].text == text[: text.find(stop)]


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_truncation_to_one_token_is_greedy_and_certain(
    generator: TransformersGenerator, tokenizer: ChatTokenizer, options: dict[str, float]
) -> None:
    prompts = encode(tokenizer)
    best = generator.generate(prompts, Sampling(max_tokens=10, temperature=0.0))
    for (a,), group in zip(best, generator.generate(prompts, sampling(5, max_tokens=10, **options)), strict=True):
        for b in group:
            assert b.token_ids == a.token_ids
            assert b.logprobs == pytest.approx([0.0] * len(b.logprobs), abs=1e-6)


def test_load_takes_over_weights_by_value_or_by_storage(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    generator = TransformersGenerator(load_model(str(tiny_folder)), tokenizer)
    prompts, request = encode(tokenizer), sampling(len(PROMPTS))
    before = generator.generate(prompts, request)
    other = tiny_model(seed=1)
    generator.load(other.named_parameters())
    changed = generator.generate(prompts, request)
    assert changed == TransformersGenerator(other, tokenizer).generate(prompts, request) != before
    storage = {name: p.data_ptr() for name, p in generator.model.named_parameters()}
    generator.load(generator.model.named_parameters())
    assert {name: p.data_ptr() for name, p in generator.model.named_parameters()} == storage
    with pytest.raises(ValueError, match=r"weights must fit .*, got nonsense"):
        generator.load([("nonsense", torch.zeros(1))])


def test_model_comes_back_as_it_was(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    model = load_model(str(tiny_folder)).train()
    attention = model.config._attn_implementation
    generator = TransformersGenerator(model, tokenizer)
    generator.generate(encode(tokenizer), sampling(len(PROMPTS), max_tokens=3))
    assert model.training
    assert model.config._attn_implementation == attention
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()  # no inference tensors, a graph as ever
    assert model.lm_head.weight.grad is not None


def test_sleep_and_wake_lose_nothing(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    generator = TransformersGenerator(load_model(str(tiny_folder)), tokenizer, home="cpu")
    prompts, request = encode(tokenizer), sampling(len(PROMPTS), max_tokens=4)
    before = generator.generate(prompts, request)
    generator.sleep()
    generator.wake()
    assert generator.generate(prompts, request) == before


def test_progress_sums_to_the_whole_request(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    done: list[int] = []
    generator = TransformersGenerator(load_model(str(tiny_folder)), tokenizer, max_rows=7, progress=done.append)
    prompts = [*encode(tokenizer), tokenizer.encode("x" * 500)]  # the last one's context ends early
    generator.generate(prompts, sampling(len(prompts), n=4, max_tokens=40, temperature=1.5))
    assert sum(done) == len(prompts) * 4 * 40
    assert min(done) > 0


def test_logits_that_are_not_finite_are_an_error(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    model = load_model(str(tiny_folder))
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        TransformersGenerator(model, tokenizer).generate([(5, 6)], sampling(1))

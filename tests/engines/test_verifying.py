"""Drafts change the speed alone: the same completions with and without, greedy and sampled, on many families."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaForCausalLM, PreTrainedModel

from families import FAMILIES, build
from pairs import LIMIT, different, margin, miniature_pairs
from refinerl.alignment import align
from refinerl.engines.models import load_model
from refinerl.engines.optimization import Optimization
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.verifying import fault
from refinerl.records import Completion, Sampling
from tiny import make_rows, tiny_model, tiny_tokenizer

PROMPTS = ("a", "What is 1 + 1?", "def f(x):\n    return", "hello " * 9, "zz")
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {},
    "hot": {"temperature": 1.6, "n": 3},
    "top_p": {"top_p": 0.8, "temperature": 0.7},
    "top_k": {"top_k": 5},
}


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def exact() -> PreTrainedModel:
    """In float64, where rounding is far smaller than any difference between chances."""
    return tiny_model().double().eval()


def request(n: int = 1, max_tokens: int = 60, prompts: int = len(PROMPTS), **options: Any) -> Sampling:
    seeds = [[1000 * i + j for j in range(n)] for i in range(prompts)]
    return Sampling(max_tokens=max_tokens, n=n, seeds=seeds, **options)


def drafts_of(groups: Sequence[Sequence[Completion]]) -> list[list[int]]:
    """Return the first completion of each group with some tokens replaced, inserted and deleted."""
    rng = random.Random(0)
    drafts = []
    for group in groups:
        ids = list(group[0].token_ids)
        for _ in range(len(ids) // 15):
            place = rng.randrange(len(ids))
            ids[place : place + rng.randrange(3)] = [rng.randrange(4, 260) for _ in range(rng.randrange(3))]
        drafts.append(ids)
    return drafts


def texts(groups: Sequence[Sequence[Completion]]) -> list[list[tuple[Any, ...]]]:
    return [[(c.token_ids, c.text, c.finish_reason) for c in group] for group in groups]


def check(generator: TransformersGenerator, prompts: Sequence[Sequence[int]], sampling: Sampling) -> float:
    """Compare completions with and without drafts; return the ratio of the passes."""
    start = generator.decoded
    plain = generator.generate(prompts, sampling)
    between = generator.decoded
    drafts = drafts_of(plain)
    guessed = generator.generate(prompts, sampling, drafts=drafts)
    assert texts(guessed) == texts(plain)
    for mine, theirs in zip(guessed, plain, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    without, spent = between - start, generator.decoded - between
    assert (without.drafted, without.accepted) == (0, 0)
    assert spent.tokens == without.tokens
    assert 0 < spent.accepted <= min(spent.drafted, spent.tokens)
    return without.passes / spent.passes


@pytest.mark.parametrize("name", REQUESTS)
def test_completions_are_the_same(exact: PreTrainedModel, tokenizer: ChatTokenizer, name: str) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    ratio = check(TransformersGenerator(exact, tokenizer), prompts, request(**REQUESTS[name]))
    assert ratio > 2 or name in ("sampled", "hot")  # of a batch's rows, the least guessable one counts


@pytest.mark.parametrize("rows", [1, 4])
def test_batches_of_any_size_and_rows_that_outlive_others(
    exact: PreTrainedModel, tokenizer: ChatTokenizer, rows: int
) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    generator = TransformersGenerator(exact, tokenizer, max_rows=rows)
    check(generator, prompts, request(n=2, max_tokens=60, temperature=1.5))


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tokenizer: ChatTokenizer) -> None:
    """Learned positions, windows in all layers or in some, fused projections, attention that adds its mask."""
    model = build(family).double().eval()
    prompts = [tokenizer.encode(text) for text in ("a", "hello there", "x" * 30)]
    generator = TransformersGenerator(model, tokenizer, say=pytest.fail)
    check(generator, prompts, request(prompts=3, max_tokens=40, temperature=0.5))
    check(generator, prompts, request(prompts=3, max_tokens=40, temperature=0.0))


def test_stop_strings_and_limits(exact: PreTrainedModel, tokenizer: ChatTokenizer) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    generator = TransformersGenerator(exact, tokenizer, context_length=80)
    text = generator.generate(prompts, request())[1][0].text
    check(generator, prompts, request(stop=("never there", text[20:22])))
    check(generator, prompts, request(max_tokens=7))
    check(generator, prompts, request(max_tokens=500))  # the context ends first


def test_the_last_token_may_be_guessed_and_ends_the_completion(
    exact: PreTrainedModel, tokenizer: ChatTokenizer
) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    sampling = request(n=12, max_tokens=150, temperature=1.5)
    generator = TransformersGenerator(exact, tokenizer)
    ended = [c for group in generator.generate(prompts, sampling) for c in group if c.finish_reason == "stop"]
    assert ended
    for group, plain in zip(prompts, generator.generate(prompts, sampling), strict=True):
        one = next((j for j, c in enumerate(plain) if c.finish_reason == "stop"), None)
        if one is not None:
            seeds = [[sampling.seeds[prompts.index(group)][one]]]
            alone = Sampling(max_tokens=150, temperature=1.5, seeds=seeds)
            before = generator.decoded
            found = generator.generate([group], alone, drafts=[plain[one].token_ids])
            assert texts(found) == texts([[plain[one]]])
            spent = generator.decoded - before
            assert spent.accepted >= spent.tokens - spent.passes


@pytest.mark.parametrize(
    "draft",
    [(), (7,) * 3000, (10**9, -1, 260, 5, 6), (2, 2, 2), tuple(range(4, 260)) * 2],
    ids=["empty", "longer than the context", "tokens that the vocabulary lacks", "ends at once", "another text"],
)
def test_no_draft_is_bad_input(exact: PreTrainedModel, tokenizer: ChatTokenizer, draft: tuple[int, ...]) -> None:
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    generator = TransformersGenerator(exact, tokenizer)
    for sampling in (request(), request(temperature=0.0)):
        plain = generator.generate(prompts, sampling)
        assert texts(generator.generate(prompts, sampling, drafts=[draft] * len(prompts))) == texts(plain)


def test_a_refiner_that_never_ends_is_guessed_from_its_own_loop(tokenizer: ChatTokenizer) -> None:
    """Its greedy completions repeat themselves up to the limit, whatever the draft."""
    model = tiny_model(scale=0.02, seed=3).double().eval()
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    generator = TransformersGenerator(model, tokenizer)
    greedy = Sampling(max_tokens=200, temperature=0.0)
    plain = generator.generate(prompts, greedy)
    assert {c.finish_reason for (c,) in plain} == {"length"}
    before = generator.decoded
    assert texts(generator.generate(prompts, greedy, drafts=[()] * len(prompts))) == texts(plain)
    assert (generator.decoded - before).passes < 100


def test_progress_sums_to_the_whole_request(tiny_folder: Path, tokenizer: ChatTokenizer) -> None:
    done: list[int] = []
    generator = TransformersGenerator(load_model(str(tiny_folder)), tokenizer, max_rows=3, progress=done.append)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    sampling = request(n=2, temperature=1.5, stop=("e",))
    drafts = drafts_of(generator.generate(prompts, sampling))
    assert sum(done) == len(prompts) * 2 * 60
    done.clear()
    generator.generate(prompts, sampling, drafts=drafts)
    assert sum(done) == len(prompts) * 2 * 60
    assert min(done) > 0


def test_base_and_adapter(tokenizer: ChatTokenizer) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    from refinerl.engines.lora import LoraNetwork

    policy = TorchTrainer(LoraNetwork(tiny_model().double(), rank=4, alpha=8), Optimization(learning_rate=2e-2))
    policy.backward(-policy.forward(make_rows([(5, 6, 7)], [(10, 11, 12)])).logprobs.sum())
    policy.step()
    generator = TransformersGenerator(policy.network.model, tokenizer, base=policy.network.base)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    tuned, base = (generator.generate(prompts, request(), adapter=adapter) for adapter in (True, False))
    assert texts(tuned) != texts(base)
    for adapter, plain in ((True, tuned), (False, base)):
        guessed = generator.generate(prompts, request(), adapter=adapter, drafts=drafts_of(base))
        assert texts(guessed) == texts(plain)


def test_guesses_can_be_turned_off(exact: PreTrainedModel, tokenizer: ChatTokenizer) -> None:
    generator = TransformersGenerator(exact, tokenizer, guesses=0)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    plain = generator.generate(prompts, request())
    assert generator.generate(prompts, request(), drafts=drafts_of(plain)) == plain
    assert generator.decoded.drafted == 0


class Blind(LlamaForCausalLM):
    """A model that ignores masks of four dimensions, as one may that computes its own."""

    def forward(self, attention_mask: Any = None, **options: Any) -> Any:
        four = torch.is_tensor(attention_mask) and attention_mask.dim() == 4
        return super().forward(attention_mask=None if four else attention_mask, **options)


def test_a_model_that_cannot_verify_says_so_once_and_writes_plainly(tokenizer: ChatTokenizer) -> None:
    said: list[str] = []
    blind = Blind(tiny_model().config).eval()
    generator = TransformersGenerator(blind, tokenizer, say=said.append)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    plain = generator.generate(prompts, request())
    for _ in range(2):
        assert generator.generate(prompts, request(), drafts=drafts_of(plain)) == plain
    assert generator.decoded.drafted == 0
    (line,) = said
    assert line.startswith("drafts are ignored, so refinements take longer: ")
    assert "a pass over several tokens" in line
    with pytest.warns(UserWarning, match="drafts are ignored"):
        TransformersGenerator(blind, tokenizer).generate(prompts, request(), drafts=[()] * len(prompts))


def test_a_model_without_masks_says_once_that_samples_wait_for_their_batch(tokenizer: ChatTokenizer) -> None:
    said: list[str] = []
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    blind = Blind(tiny_model().config).eval()
    whole = TransformersGenerator(blind, tokenizer, max_rows=len(prompts), say=pytest.fail)
    plain = whole.generate(prompts, request(max_tokens=20))  # one batch: no sample waits for another one's end
    generator = TransformersGenerator(blind, tokenizer, max_rows=len(prompts) - 1, say=said.append)
    for _ in range(2):
        assert texts(generator.generate(prompts, request(max_tokens=20))) == texts(plain)
    (line,) = said
    assert line.startswith("samples are written in batches of 4, each until its last one ends")
    assert "a pass over several tokens" in line


def test_a_model_that_cuts_its_own_causal_mask_cannot_verify(tokenizer: ChatTokenizer) -> None:
    """GPT-Neo takes the last columns for those of all queries; rows of other lengths lost keys, their own included."""
    said: list[str] = []
    shape = {"hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPTNeoForCausalLM(GPTNeoConfig(vocab_size=260, max_position_embeddings=256, **shape)).double().eval()
    generator = TransformersGenerator(model, tokenizer, say=said.append)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    plain = generator.generate(prompts, request(temperature=0.0))
    assert generator.generate(prompts, request(temperature=0.0), drafts=drafts_of(plain)) == plain
    assert "a pass over several tokens changes its logits" in said[0]


def test_an_error_without_a_message_is_a_reason() -> None:
    class Refusing(LlamaForCausalLM):
        def forward(self, attention_mask: Any = None, **options: Any) -> Any:
            if torch.is_tensor(attention_mask):
                raise AssertionError
            return super().forward(attention_mask=attention_mask, **options)

    assert fault(Refusing(tiny_model().config).eval()) == "a pass over several tokens fails (AssertionError: )"


def test_attention_without_masks_of_queries_cannot_verify(exact: PreTrainedModel) -> None:
    assert fault(exact) is None
    config = exact.config
    before = config._attn_implementation
    try:
        config._attn_implementation = "flash_attention_2"
        assert "'flash_attention_2', which takes no mask" in (fault(exact) or "")
    finally:
        config._attn_implementation = before


# --- a trained refiner --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_thousand_refinements_are_the_same() -> None:
    """In float32, where a tie may be decided otherwise: two completions part only where the model is undecided."""
    pairs = miniature_pairs(1000)
    for sampling in (pairs.sampling(), pairs.sampling(1.0)):
        generator = TransformersGenerator(pairs.model, pairs.tokenizer)
        plain = generator.generate(pairs.requests, sampling)
        start = generator.decoded
        guessed = generator.generate(pairs.requests, sampling, drafts=pairs.responses)
        spent = generator.decoded - start
        assert start.passes > 1.5 * spent.passes
        assert spent.accepted > 0.5 * spent.tokens
        parted = different(guessed, plain)
        assert len(parted) <= 2
        for i in parted:
            twin = load_model("miniature")
            seed = sampling.seeds[i][0]
            assert margin(twin, pairs.requests[i], guessed[i][0], plain[i][0], sampling, seed) < 1e-4


@pytest.mark.slow
def test_refinements_that_copy_nine_tokens_in_ten_take_five_times_fewer_passes() -> None:
    """One at a time: the passes of a batch are those of its row with the most."""
    pairs = miniature_pairs(160)
    generator = TransformersGenerator(pairs.model, pairs.tokenizer)
    plain = [group[0].token_ids for group in generator.generate(pairs.requests, pairs.sampling())]
    copies = [
        i
        for i, alignment in enumerate(align(pairs.responses, plain))
        if alignment.copy_ratio >= 0.9 and plain[i] != pairs.responses[i]
    ]
    assert len(copies) > 40
    alone = TransformersGenerator(pairs.model, pairs.tokenizer, max_rows=1)
    requests, drafts = ([texts[i] for i in copies] for texts in (pairs.requests, pairs.responses))
    found = alone.generate(requests, Sampling(LIMIT, 0.0), drafts=drafts)
    assert [group[0].token_ids for group in found] == [plain[i] for i in copies]
    assert alone.decoded.tokens > 5 * alone.decoded.passes


@pytest.mark.slow
def test_in_float64_refinements_are_equal_token_by_token() -> None:
    pairs = miniature_pairs(100, torch.float64)
    generator = TransformersGenerator(pairs.model, pairs.tokenizer, max_rows=32)
    for sampling in (pairs.sampling(), pairs.sampling(1.0), pairs.sampling(0.7, top_p=0.9)):
        plain = generator.generate(pairs.requests, sampling)
        assert different(generator.generate(pairs.requests, sampling, drafts=pairs.responses), plain) == []

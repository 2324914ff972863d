"""Rows that share prefixes, computed as a tree, give what rows give alone: outputs, gradients, families of models."""

from __future__ import annotations

from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    Gemma3Config,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from families import SHAPE, build, windowed
from refinerl.engines import packing
from refinerl.engines.attention import SEGMENTED, UnknownAttentionError
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.networks import PolicyNetwork, ValueNetwork, recompute
from refinerl.engines.packing import SharesPrefixes, tree_of, why_not
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.records import Outputs, Rows
from tiny import halved, make_rows, tiny_model

P, Q = (5, 6, 7, 8, 9, 10), (11, 12, 13)
Y = (20, 21, 22, 23, 24)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MEMBERS: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [  # prompt, completion, is it ỹ
    (P, Y, False),
    (P, Y, False),  # identical
    (P, (*Y, 30, 2), True),  # ỹ extends y
    (P, Y[:3], False),  # a proper prefix
    (P, (20, 21, 40, 41, 2), True),  # begins as y does
    (P, Y, True),  # is y
    (P, (2,), False),  # one token
    (P, (50, 51), True),  # begins unlike every y, and is there twice
    (P, (50, 51), True),
    (P, (50, 52), True),  # of weight 0
    (Q, (14, 15, 2), False),  # another prompt
    (Q, (), False),  # no token
    ((*P, 20), (21, 22, 60), False),  # a prompt that goes on as a response does
]
ROWS = make_rows([m[0] for m in MEMBERS], [m[1] for m in MEMBERS], refined=[i for i, m in enumerate(MEMBERS) if m[2]])
WEIGHTS = torch.tensor([0, 0, 0.3, 0, 0.7, 0.2, 0, 0.5, 0.1, 0, 0, 0, 0], dtype=torch.float64)


TEXTS = (
    "Write a Python function that returns the sum of the even numbers of a list.\n",
    "def f(x):\n    return sum(v for v in x if v % 2 == 0)\n",
    "def f(x):\n    total = 0\n    for v in x:\n        total += v\n    return total\n",
    "The sum of the even numbers is 12.",
    "def f(x):\n    total = 0\n    for v in x:\n        if v % 2 == 0:\n            total += v\n    return total\n",
    "\nprint(f([1, 2]))\n",
)
"""A prompt; a response that is right, one that is wrong, one in words; a refinement of the second; a continuation."""


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """The model all in float64: transformers computes norms in float32, which rounds the gradient of each row."""
    for norm in (m for m in model.modules() if hasattr(m, "variance_epsilon")):
        norm.forward = MethodType(lambda m, x: m.weight * F.rms_norm(x, x.shape[-1:], eps=m.variance_epsilon), norm)
    return model.eval().double()


def model_of(kind: str, *, tied: bool) -> PreTrainedModel:
    """A tiny model in float64 with grouped heads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "qwen2":
            return exact(Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=tied)))
        context = {"original_max_position_embeddings": 8}  # so that positions are in all of its three bands
        config = LlamaConfig(**SHAPE, tie_word_embeddings=tied, rope_parameters={**LLAMA3, **context})
        return exact(LlamaForCausalLM(config))


def shared(network: Any) -> Any:
    assert why_not(network.trunk) == ""
    network.sharing = "always"
    return network


def upstream(outputs: Outputs) -> Tensor:
    """A random loss of all that a network computes."""
    random = torch.Generator().manual_seed(1)
    parts = [t for t in (outputs.logprobs, outputs.entropies, outputs.values) if t is not None and t.numel()]
    slopes = [torch.randn(t.shape, generator=random, dtype=torch.float64) for t in parts]
    return outputs.weighted_nll + sum((s * t).sum() for s, t in zip(slopes, parts, strict=True))


def both_ways(network: Any, rows: Rows = ROWS, weights: Tensor | None = WEIGHTS) -> list[tuple[Outputs, dict]]:
    """Outputs and gradients of rows alone and shared."""
    found = []
    for sharing in ("never", "always"):
        network.sharing = sharing
        network.zero_grad()
        outputs = network(rows, weights)
        upstream(outputs).backward()
        gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        found.append((outputs, gradients))
    return found


def assert_same(found: list[tuple[Outputs, dict]], tolerance: float) -> None:
    (alone, wanted), (packed, got) = found
    for name in ("logprobs", "entropies", "weighted_nll", "values"):
        mine, theirs = getattr(packed, name), getattr(alone, name)
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=0)
    assert got.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert float((got[name] - gradient).abs().max()) <= tolerance * max(1.0, largest), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["llama3", "qwen2"])
def test_a_policys_outputs_and_gradients(kind, tied):
    network = shared(PolicyNetwork(model_of(kind, tied=tied), temperature=0.7))
    found = both_ways(network)
    assert_same(found, 1e-12)
    assert found[0][0].shared == 0
    assert found[1][0].shared == int(ROWS.attention_mask.sum()) - len(tree_of(ROWS, "always"))
    with torch.no_grad():
        quiet = network(ROWS, WEIGHTS)
    torch.testing.assert_close(quiet.weighted_nll, found[0][0].weighted_nll, atol=1e-12, rtol=0)
    constraint_of_no_weight = ROWS.is_constraint & (WEIGHTS == 0)
    assert not found[1][0].logprobs[constraint_of_no_weight].any()


def test_a_critics_values_and_gradients():
    critic = shared(ValueNetwork(model_of("llama3", tied=True).base_model))
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert_same(both_ways(critic, weights=None), 1e-12)


def test_an_adapters_gradients():
    pytest.importorskip("peft", reason="peft is not installed")
    from refinerl.engines.lora import LoraNetwork

    network = LoraNetwork(model_of("llama3", tied=True), rank=2, alpha=4).double()
    for name, p in network.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(2))
    found = both_ways(shared(network))
    assert_same(found, 1e-12)
    with network.base():
        assert not torch.allclose(network(ROWS).logprobs, found[1][0].logprobs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_are_computed_again(reentrant):
    network = shared(PolicyNetwork(model_of("llama3", tied=False)))
    wanted = both_ways(network)[0]
    recompute(network, reentrant=reentrant)
    network.zero_grad()
    outputs = network(ROWS, WEIGHTS)
    upstream(outputs).backward()
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert_same([wanted, (outputs, gradients)], 1e-12)


def test_float32_kernels_of_the_cross_entropy():
    network = shared(PolicyNetwork(tiny_model(), impl="cpu"))
    assert_same(both_ways(network), 1e-4)


def test_bfloat16():
    network = shared(PolicyNetwork(halved(tiny_model(scale=0.1))))
    (alone, _), (packed, _) = both_ways(network)
    assert float((packed.logprobs - alone.logprobs).detach().abs().max()) < 0.05


class Sums(TorchDispatchMode):
    """The types of sums by index."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[torch.dtype] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.index_add_.default:
            self.kinds.append(args[0].dtype)
        return operator(*args, **(kwargs or {}))


def test_gradients_of_many_responses_to_a_prompt_add_up_in_float32():
    """One by one in bfloat16, the small ones would be lost, as PyTorch loses them on a GPU and not on a CPU."""
    hidden = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    index = torch.tensor([1, *[0] * 65])
    slopes = torch.full((66, 3), 2.0**-9)
    slopes[:2] = 1
    with Sums() as sums:
        packing._Branches.apply(hidden, index).backward(slopes.bfloat16())
    assert sums.kinds == [torch.float32]
    assert hidden.grad.tolist() == [[1 + 64 * 2.0**-9] * 3, [1.0] * 3]


@pytest.mark.slow
def test_a_real_model():
    """The whole gradient to 1e-5; rows one by one are about as far from rows together."""
    tokenizer = ChatTokenizer.load(resolve_model("smollm2-135m-instruct"))
    prompt, sound, wrong, words, better, more = (tuple(tokenizer.encode(text)) for text in TEXTS)
    completions = [sound, wrong, sound, words, wrong[:5], better, sound + more]
    rows = make_rows([prompt] * 7, completions, refined=[5, 6])
    network = shared(PolicyNetwork(load_model("smollm2-135m-instruct")))
    found = both_ways(network, rows, torch.tensor([0, 0, 0, 0, 0, 0.3, 0.7], dtype=torch.float64))
    (alone, wanted), (packed, got) = found
    assert packed.shared > 100
    assert float((packed.logprobs - alone.logprobs).detach().abs().max()) < 1e-4
    error = sum(float((got[name] - gradient).double().norm()) ** 2 for name, gradient in wanted.items())
    size = sum(float(gradient.double().norm()) ** 2 for gradient in wanted.values())
    assert (error / size) ** 0.5 < 1e-5


def test_rows_without_a_target_and_no_rows():
    network = shared(PolicyNetwork(model_of("llama3", tied=True)))
    none = ROWS.select(torch.tensor([11]))
    assert network(none).logprobs.shape == (1, 0)
    assert network(ROWS.select(torch.zeros(0, dtype=torch.int64))).logprobs.shape == (0, 0)


def test_counts_decide():
    network = PolicyNetwork(model_of("llama3", tied=True))
    assert why_not(network.trunk) == ""
    network.sharing = "auto"
    prompt = tuple(range(5, 105))
    like = make_rows([prompt] * 4, [(*range(110, 118), i) for i in range(4)])
    unlike = make_rows([(i,) for i in range(5, 9)], [tuple(range(110, 118))] * 4)
    assert network(like).shared == 4 * 109 - (100 + 8 + 4)
    assert network(unlike).shared == 0
    assert tree_of(like.select(torch.tensor([0])), "always") is None


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", ""),
        ("qwen2", ""),
        ("qwen3", ""),
        ("phi3", ""),
        ("mistral", "sliding_window"),
        ("gemma3", "sliding_window"),
        ("eager", "'eager'"),
    ],
)
def test_families(family, reason):
    model = exact(build(family))
    before = model.config._attn_implementation
    found = why_not(model.base_model)
    assert (reason in found) if reason else found == ""
    assert model.config._attn_implementation == before
    if not reason:
        assert_same(both_ways(PolicyNetwork(model)), 1e-11)


WINDOWED = ("mistral", "phi3", "phimoe", "qwen2_moe")


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("window", [40, 255])
def test_a_window_that_is_longer_than_the_probe_is_found(monkeypatch, family, window):
    """By the configuration, and by the masks that the model makes."""
    trunk = windowed(family, window).eval().base_model
    assert why_not(trunk) == f"its attention is limited (sliding_window = {window})"
    monkeypatch.setattr(packing, "_limit", lambda config: "")
    assert "(a window, or chunks)" in why_not(trunk)


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("window", [None, 256, 10_000])
def test_a_window_that_no_row_reaches_changes_nothing(family, window):
    assert why_not(windowed(family, window).eval().base_model) == ""


def test_a_tree_that_reaches_a_window_is_refused_at_any_time():
    network = PolicyNetwork(windowed("mistral", 8))
    network.sharing = "always"
    with pytest.raises(UnknownAttentionError, match=r"not plain and causal \(sliding_window = 8\)"):
        network(ROWS)


def test_a_mask_of_the_models_own_is_refused(monkeypatch):
    """As those have that choose the tokens to attend to."""
    model = tiny_model()
    layer = model.model.layers[1]
    compute = layer.forward
    mask = torch.zeros(1, 1, 1, 2)
    monkeypatch.setattr(
        layer,
        "forward",
        lambda *given, **options: compute(
            *given, **options | ({"attention_mask": mask} if options.get("segments") else {})
        ),
    )
    assert "a mask of its own" in why_not(model.base_model)


@pytest.mark.parametrize("name", ["attention_chunk_size", "index_topk"])
def test_other_limits_of_attention_are_found_by_their_names(name):
    model = tiny_model(context=64)
    setattr(model.config, name, 32)
    assert why_not(model.base_model) == f"its attention is limited ({name} = 32)"
    setattr(model.config, name, 64)
    assert why_not(model.base_model) == ""


def test_layers_of_another_kind_are_found():
    shape = {**SHAPE, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
    assert why_not(Lfm2ForCausalLM(Lfm2Config(**shape)).eval().base_model) == "it has layers of conv"


def test_layers_whose_attention_is_their_own_are_found(monkeypatch):
    """As those of hybrid models are, which have none."""
    model = tiny_model()
    monkeypatch.setattr(
        model.model.layers[1].self_attn, "forward", lambda hidden_states, **_: (hidden_states / 2, None)
    )
    assert why_not(model.base_model) == "1 of its 2 layers have attention that transformers lets others compute"


def test_a_model_has_other_attention_only_while_it_shares():
    network = PolicyNetwork(tiny_model())
    config = network.trunk.config
    for sharing, attention in (("auto", SEGMENTED), ("always", SEGMENTED), ("never", "sdpa"), ("never", "sdpa")):
        network.sharing = sharing
        assert network.sharing == sharing
        assert network.model.config._attn_implementation == config._attn_implementation == attention


def test_each_part_of_a_model_has_its_own_attention_again():
    class WithImages(SharesPrefixes):
        trunk = SimpleNamespace(config=Gemma3Config())

    config = WithImages.trunk.config
    config._attn_implementation = {"": "sdpa", "text_config": "sdpa", "vision_config": "eager"}
    network = WithImages()
    network.sharing = "always"
    assert config.text_config._attn_implementation == SEGMENTED
    network.sharing = "never"
    parts = (config, config.text_config, config.vision_config)
    assert [part._attn_implementation for part in parts] == ["sdpa", "sdpa", "eager"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IndexError("too many indices for tensor of dimension 2\nmore"), "(IndexError: too many indices for tensor of"),
        (KeyError("full_attention"), "(KeyError: 'full_attention')"),
        (AttributeError("no attribute 'layers'"), "(AttributeError: no attribute 'layers')"),
        (NotImplementedError(), "(NotImplementedError: )"),
        (AssertionError("4 is not 2"), "(AssertionError: 4 is not 2)"),
    ],
)
def test_a_model_that_fails_with_a_tree_is_found(monkeypatch, error, said):
    model = tiny_model()
    monkeypatch.setattr(model.model.layers[1], "forward", failing_with_a_tree(model.model.layers[1], error))
    assert said in why_not(model.base_model)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ZeroDivisionError()])
def test_other_errors_of_a_probe_are_raised_and_leave_the_model_as_it_was(monkeypatch, error):
    model = tiny_model()
    monkeypatch.setattr(model.model.layers[1], "forward", failing_with_a_tree(model.model.layers[1], error))
    with pytest.raises(type(error)):
        why_not(model.base_model)
    assert model.config._attn_implementation == "sdpa"


def failing_with_a_tree(layer: torch.nn.Module, error: Exception) -> Any:
    compute = layer.forward

    def forward(*given: Any, **options: Any) -> Any:
        if options.get("segments") is not None:
            raise error
        return compute(*given, **options)

    return forward


def test_a_model_that_goes_by_the_name_of_its_attention_is_found(monkeypatch):
    """As those do that choose the tokens to attend to, if the attention is one that transformers knows."""
    model = tiny_model()
    mix = model.model.layers[1].mlp.forward
    known = ("eager", "sdpa")
    monkeypatch.setattr(
        model.model.layers[1].mlp,
        "forward",
        lambda x: mix(x) * (2 if model.config._attn_implementation in known else 1),
    )
    assert "a probe of rows alone is off by" in why_not(model.base_model)


def test_a_model_that_ignores_the_tree_is_found(monkeypatch):
    """As a model does that has attention of its own beside the registered one."""
    model = tiny_model()
    layer = model.model.layers[1]
    mix = layer.mlp.forward
    monkeypatch.setattr(layer.mlp, "forward", lambda x: mix(x) + x.cumsum(1))
    assert "a probe of a shared prefix is off by" in why_not(model.base_model)
    assert model.config._attn_implementation == "sdpa"

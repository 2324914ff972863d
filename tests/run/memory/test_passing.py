"""What passes through a GPU in an update: against the tensors that PyTorch keeps, and by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

import flash
from allocated import taken
from refinerl.engines import segments
from refinerl.engines.attention import SEGMENTED
from refinerl.engines.packing import tree_states
from refinerl.kernels import chunked
from refinerl.kernels.prefixes import PrefixTree, prefix_tree
from refinerl.run.memory import Shape, Training, find, held, staying, update_peak
from refinerl.run.memory.passing import CHUNK, KEYS, Pass, attending, head, of_a_layer
from refinerl.run.memory.shapes import KNOWN

GIB = 2**30


def kept(
    kind: type[Any],
    layers: int,
    tokens: int,
    dtype: torch.dtype,
    *,
    recompute: bool = False,
    tree: PrefixTree | None = None,
) -> tuple[int, Shape]:
    """Bytes that a trunk's forward pass saves for its backward pass, beside its weights."""
    config = kind(
        hidden_size=128,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=layers,
        vocab_size=128,
        attn_implementation="sdpa",
    )
    trunk = AutoModelForCausalLM.from_config(config, dtype=dtype).base_model
    weights = {p.untyped_storage().data_ptr() for p in trunk.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    if recompute:
        trunk.gradient_checkpointing_enable({"use_reentrant": False})
        trunk.train()
    ids = torch.randint(0, 64, (2, tokens // 2))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if tree is None:
            last = trunk(input_ids=ids, use_cache=False).last_hidden_state
        else:
            trunk.config._attn_implementation = SEGMENTED
            last = tree_states(trunk, tree)
    assert last.requires_grad
    return sum(t.untyped_storage().nbytes() for t in saved.values()), Shape.of(config)


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
def test_a_layer_keeps_what_is_counted(kind):
    two, _ = kept(kind, 2, 64, torch.bfloat16)
    three, shape = kept(kind, 3, 64, torch.bfloat16)
    assert three - two == 64 * of_a_layer(shape, 2)


def test_a_recomputed_layer_keeps_its_input():
    two, _ = kept(LlamaConfig, 2, 64, torch.bfloat16, recompute=True)
    three, shape = kept(LlamaConfig, 3, 64, torch.bfloat16, recompute=True)
    assert three - two == 64 * 2 * shape.hidden


def test_a_layer_keeps_as_much_of_a_tree_as_of_rows():
    """On a GPU. On the CPU it does without the softmax's sums, which the core computes again."""
    rows = torch.tensor([[*range(40), *(60 + i for _ in range(6))] for i in range(4)])
    tree = prefix_tree(rows, torch.tensor([46] * 4))
    assert len(tree) == 64
    two, _ = kept(LlamaConfig, 2, 64, torch.bfloat16, tree=tree)
    three, shape = kept(LlamaConfig, 3, 64, torch.bfloat16, tree=tree)
    assert three - two == 64 * (of_a_layer(shape, 2) - 4 * shape.heads)


@pytest.mark.parametrize("kv_heads", [2, 6])
def test_attention_over_a_tree_takes_what_is_counted(monkeypatch, kv_heads):
    """One prompt with many short responses, whose keys are gathered again and again."""
    kernels = {"_flash_attention_forward": flash.hollow_forward, "_flash_attention_backward": flash.hollow_backward}
    monkeypatch.setattr(segments, "aten", SimpleNamespace(**kernels))
    rows = torch.tensor([[*range(600), *(1000 + i for _ in range(4))] for i in range(40)])
    tree = prefix_tree(rows, torch.tensor([604] * 40))
    shape = Shape(1, 96, 240, 6, kv_heads, 16, 2000)
    q, k, v = (torch.zeros(n, len(tree), 16, dtype=torch.bfloat16).requires_grad_() for n in (6, kv_heads, kv_heads))
    calls = segments.Segments(tree, torch.device("cpu")).flash
    assert len(calls) > 5
    out = segments._Flash.apply(q, k, v, calls, 0.25)
    gradient = torch.zeros_like(out)
    _, most = taken(lambda: torch.autograd.grad(out, (q, k, v), gradient))
    counted = len(tree) * (attending(shape, 2) - 2 * 2 * shape.hidden)
    assert 0.5 * counted < most <= 1.01 * counted


def test_known_models_need_no_more_memory_for_a_tree_than_for_rows():
    """Temporary memory is largest in the MLP, unless a model is as small as the miniature."""
    for shape in (shape for name, shape in KNOWN.items() if not name.startswith("miniature")):
        for width in (2, 4):
            mlp = width * (3 * shape.intermediate + 2 * shape.hidden)
            assert attending(shape, width) - 4 * width * shape.intermediate < mlp


def test_the_constants_are_the_kernels():
    assert chunked.WORKSPACE["cuda"] == CHUNK
    assert segments.KEYS == KEYS


def test_the_head_of_llama_3b_by_hand():
    """512 MiB of logits, half of that in bfloat16, and 394 M weights: once float32, up to three times bfloat16."""
    shape = find("meta-llama/Llama-3.2-3B-Instruct")
    assert shape is not None
    assert head(shape, 8192, 2, constraint=True) == (512 + 256) * 2**20 + 394_002_432 * (4 + 3 * 2)
    assert head(shape, 8192, 2, constraint=True) / GIB == pytest.approx(4.4, abs=0.05)
    assert head(shape, 8192, 2, constraint=False) / GIB == pytest.approx(3.7, abs=0.05)
    assert head(shape, 10, 2, constraint=False) < head(shape, 8192, 2, constraint=False)


def test_a_peak_is_what_is_held_and_what_passes():
    shape = find("Qwen/Qwen2.5-0.5B-Instruct")
    assert shape is not None
    training = Training(dtype="bfloat16", recompute=True)
    full = held(shape.parameters, training, gradient=True).total
    assert update_peak(shape, training, 4096) == full + Pass(shape, training, 4096).peak()
    assert update_peak(shape, training, 4096) < update_peak(shape, Training(dtype="bfloat16"), 4096)
    assert update_peak(shape, training, 4096, loss="value") < update_peak(shape, training, 4096)
    adapter = update_peak(shape, training, 4096, adapter=shape.adapter(16))
    assert 2 * shape.parameters < adapter < full


def test_stage_3_gathers_and_scatters():
    shape = find("meta-llama/Llama-3.2-3B-Instruct")
    assert shape is not None
    plain = Pass(shape, Training("deepspeed", "bfloat16", stage=2, ranks=8, bucket=1), 4096).backward()
    spread = Pass(shape, Training("deepspeed", "bfloat16", stage=3, ranks=8, bucket=1), 4096).backward()
    assert spread - plain == 2 * 1_050_000_000  # what may be live and what is fetched ahead


def test_what_deepspeed_keeps_for_the_whole_run():
    shape = find("Qwen/Qwen2.5-0.5B-Instruct")
    assert shape is not None
    count = shape.parameters
    assert staying(shape, Training("deepspeed", "bfloat16", stage=3, bucket=1000), count) == 2000
    assert staying(shape, Training("deepspeed", "bfloat16", stage=2), count) == 0
    assert staying(shape, Training("deepspeed", "bfloat16", stage=2, offload=True), count) == 2 * 151_936 * 896
    assert staying(shape, Training(), count) == 0

"""A shape gives the sizes that transformers counts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from refinerl.data import MINIATURE, MINIATURE_FAR
from refinerl.engines.lora import LoraNetwork
from refinerl.run.memory import Shape, find
from refinerl.run.memory.shapes import KNOWN
from tiny import tiny_model

COUNTED = {
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "OpenRLHF/Llama-3-8b-rm-mixture": 8_030_261_248,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "miniature": 336_672,
    "miniature-far": 336_672,
    "smollm2-135m-instruct": 134_515_008,
}
"""Weights as the models' cards have them."""


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_has_as_many_weights_as_transformers_makes_of_its_shape(name):
    shape = KNOWN[name]
    kind = Qwen2Config if shape.bias else LlamaConfig
    config = kind(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == shape.parameters == COUNTED.get(name, shape.parameters)
    assert model.base_model.num_parameters() == shape.trunk
    assert Shape.of(config) == shape
    assert find(name.upper()) is shape


def test_a_model_on_this_machine_is_counted(tmp_path):
    model = tiny_model(hidden=64, layers=3)
    model.save_pretrained(tmp_path)
    shape = find(str(tmp_path))
    assert shape is not None
    assert (shape.layers, shape.hidden, shape.vocabulary) == (3, 64, 260)
    assert shape.parameters == model.num_parameters() == shape.trunk


@pytest.mark.parametrize(("name", "folder"), [("miniature", MINIATURE), ("miniature-far", MINIATURE_FAR)])
def test_the_shape_of_the_miniature_is_the_shipped_one(name, folder):
    config = AutoConfig.from_pretrained(folder / "base")
    assert find(name) == Shape.of(config)


def test_nobody_knows_a_model_that_is_elsewhere(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find("nobody/has-this-model") is None


@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj")])
def test_an_adapter_is_as_large_as_pefts(targets):
    pytest.importorskip("peft")
    model = tiny_model(hidden=64, layers=3)
    shape = Shape.of(model.config)
    network = LoraNetwork(model, rank=4, alpha=8, targets=targets)
    learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert learns == shape.adapter(4, targets)

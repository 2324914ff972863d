"""Which networks share prefixes: all of a run or none, and a reason that is said once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from refinerl.engines import networks, packing
from refinerl.engines.packing import read_states, slowness
from refinerl.run import trainers
from tiny import tiny_tokenizer
from toy import Toy, metrics

PPO = ("algorithm.name=ppo", "algorithm.samples_per_prompt=2", "trainer.minibatch=4")


@pytest.fixture
def windowed(tmp_path, toy) -> Toy:
    """The toy with a model whose attention has a window."""
    tokenizer = tiny_tokenizer(alphabet="abcdefgh ")
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        sliding_window=64,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text((toy.folder / "prompts.jsonl").read_text())
    return Toy(tmp_path)


def test_a_model_that_cannot_computes_each_row_and_says_so_once(windowed, tmp_path, capsys):
    assert windowed.run(tmp_path / "run", "trainer.steps=1", *PPO, "constraint.name=static") == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(
        "prefixes that rows share are computed in each row: its attention is limited ("
    ) == 1
    assert metrics(tmp_path / "run")[-1]["update/tokens_shared"] == 0


def test_a_device_on_which_trees_are_slow_computes_each_row(toy, tmp_path, capsys, monkeypatch):
    """As a GPU does in float32."""
    monkeypatch.setattr(trainers, "slowness", lambda trunk: "their attention is slow in float32 on a GPU")
    assert toy.run(tmp_path / "run", "trainer.steps=1", *PPO) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("are computed in each row: their attention is slow in float32") == 1
    assert metrics(tmp_path / "run")[-1]["update/tokens_shared"] == 0


@pytest.mark.parametrize(
    ("dtype", "flash", "said"),
    [
        (torch.float32, {torch.bfloat16}, "their attention is slow in float32 on a GPU, and fast with dtype=bfloat16"),
        (torch.bfloat16, {torch.bfloat16}, ""),
        (torch.bfloat16, set(), "their attention is slow on this GPU"),
    ],
)
def test_the_reason_for_slowness_names_what_is_fast(monkeypatch, dtype, flash, said):
    monkeypatch.setattr(packing, "has_flash", lambda device, kind: kind in flash)
    assert slowness(SimpleNamespace(device=torch.device("cuda"), dtype=dtype)) == said


def test_what_cannot_be_forced_is_refused(windowed, tmp_path, capsys):
    assert windowed.run(tmp_path / "run", "trainer.share_prefixes=always") == 2
    assert "trainer.share_prefixes=always cannot work with this model (its attention" in capsys.readouterr().err


def test_all_models_of_a_run_share(toy, tmp_path, monkeypatch):
    seen = set()

    def read(trunk, rows, sharing):
        found = read_states(trunk, rows, sharing)
        if found.shared:
            seen.add(id(trunk))
        return found

    monkeypatch.setattr(networks, "read_states", read)
    shared, alone = (
        metrics(tmp_path / run)
        for run in ("always", "never")
        if toy.run(tmp_path / run, *PPO, "constraint.accept=all", f"trainer.share_prefixes={run}") == 0
    )
    assert len(seen) == 3, "policy, reference and critic"
    for mine, theirs in zip(shared, alone, strict=True):
        assert mine["update/tokens_shared"] > 0.3
        assert theirs["update/tokens_shared"] == 0
        for name in ("policy/grad_norm", "critic/grad_norm", "policy/kl_to_reference", "constraint/ce"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5, nan_ok=True), name

"""Which networks share prefixes: all of a run or none, and a reason that is said once."""

from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

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
    assert (shown.out + shown.err).count("prefixes that rows share are computed in each row: its attention is not") == 1
    assert metrics(tmp_path / "run")[-1]["update/tokens_shared"] == 0


def test_what_cannot_be_forced_is_refused(windowed, tmp_path, capsys):
    assert windowed.run(tmp_path / "run", "trainer.share_prefixes=always") == 2
    assert "trainer.share_prefixes=always cannot work with this model (its attention" in capsys.readouterr().err


def test_all_models_of_a_run_share(toy, tmp_path):
    shared, alone = (
        metrics(tmp_path / run)
        for run in ("always", "never")
        if toy.run(tmp_path / run, *PPO, "constraint.accept=all", f"trainer.share_prefixes={run}") == 0
    )
    for mine, theirs in zip(shared, alone, strict=True):
        assert mine["update/tokens_shared"] > 0.3
        assert theirs["update/tokens_shared"] == 0
        for name in ("policy/grad_norm", "critic/grad_norm", "policy/kl_to_reference", "constraint/ce"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5, nan_ok=True), name

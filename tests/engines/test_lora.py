"""A LoRA policy: one model in memory that is policy, reference and refiner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from refinerl.engines.models import load_model
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.errors import UserError
from refinerl.records import Sampling
from tiny import make_rows, tiny_tokenizer
from toy import Toy, metrics, rollouts, timeless, without_tokens

pytest.importorskip("peft", reason="peft is not installed")
from refinerl.engines.lora import LoraNetwork

ROWS = make_rows([(5, 6, 7), (8, 9)], [(10, 11, 12), (13, 14)])
PROMPTS = [(5, 6, 7), (8, 9, 30)]


def network(folder: Path, **options) -> LoraNetwork:
    return LoraNetwork(load_model(str(folder)), **{"rank": 4, "alpha": 8, **options})


def trained(folder: Path, **options) -> TorchTrainer:
    """After three steps towards the rows' targets."""
    policy = TorchTrainer(network(folder, **options), Optimization(learning_rate=5e-2))
    for _ in range(3):
        policy.backward(-policy.forward(ROWS).logprobs.sum())
        assert policy.step() > 0
    return policy


def test_it_starts_as_the_base_model(tiny_folder: Path):
    expected = TorchTrainer(PolicyNetwork(load_model(str(tiny_folder)))).forward(ROWS)
    found = TorchTrainer(network(tiny_folder), Optimization(learning_rate=1e-2)).forward(ROWS)
    assert torch.equal(found.logprobs, expected.logprobs)


def test_only_the_adapter_learns_and_without_it_the_reference_is_there(tiny_folder: Path):
    base = load_model(str(tiny_folder))
    expected = TorchTrainer(PolicyNetwork(base)).forward(ROWS)
    policy = trained(tiny_folder)
    tuned = policy.forward(ROWS)
    assert (tuned.logprobs.sum() - expected.logprobs.sum()).item() > 1
    assert torch.equal(policy.forward(ROWS, adapter=False).logprobs, expected.logprobs)
    assert torch.equal(policy.forward(ROWS).logprobs, tuned.logprobs)  # and it comes back, still learning
    assert policy.forward(ROWS).logprobs.requires_grad
    names = {name for name, _ in policy.weights()}
    assert len(names) == 2 * 2 * 7  # A and B of seven linear layers in two layers; not the head
    assert all(".lora_" in name for name in names)
    for name, p in base.named_parameters():
        mine = dict(policy.network.model.named_parameters())
        assert torch.equal(mine.get(name, mine.get(name.replace(".weight", ".base_layer.weight"))), p)


def test_over_a_model_in_bfloat16_the_adapter_is_float32_and_learns_at_a_small_rate(tiny_folder: Path):
    model = load_model(str(tiny_folder), dtype="bfloat16")
    policy = TorchTrainer(LoraNetwork(model, rank=4, alpha=8), Optimization(learning_rate=1e-6))
    before = {name: p.detach().clone() for name, p in policy.network.named_parameters()}
    for _ in range(10):
        policy.backward(-policy.forward(ROWS).logprobs.sum())
        policy.step()
    for name, p in policy.network.named_parameters():
        learns = ".lora_" in name
        assert p.dtype == (torch.float32 if learns else torch.bfloat16)
        assert float((p != before[name]).float().mean()) == pytest.approx(float(learns), abs=0.1), name


def test_a_checkpoint_holds_the_adapter_alone_and_continues_exactly(tiny_folder: Path, tmp_path: Path):
    policy = trained(tiny_folder)
    policy.save(tmp_path)
    assert all(".lora_" in name for name in torch.load(tmp_path / "trainer.pt")["network"])
    other = TorchTrainer(network(tiny_folder), Optimization(learning_rate=5e-2))
    other.load(tmp_path)
    for trainer in (policy, other):
        trainer.backward(-trainer.forward(ROWS).logprobs.sum())
        trainer.step()
    assert torch.equal(policy.forward(ROWS).logprobs, other.forward(ROWS).logprobs)


def test_the_generator_writes_with_and_without_the_adapter(tiny_folder: Path):
    tokenizer = ChatTokenizer(tiny_tokenizer())
    policy = trained(tiny_folder)
    assert isinstance(policy.network, LoraNetwork)
    generator = TransformersGenerator(policy.network.model, tokenizer, base=policy.network.base)
    generator.load(policy.weights())
    greedy = Sampling(max_tokens=12, temperature=0)
    plain = TransformersGenerator(load_model(str(tiny_folder)), tokenizer).generate(PROMPTS, greedy)
    tuned = generator.generate(PROMPTS, greedy)
    assert generator.generate(PROMPTS, greedy, adapter=False) == plain != tuned
    assert generator.generate(PROMPTS, greedy) == tuned


@pytest.mark.parametrize("tied", [True, False])
def test_the_export_is_the_adapter_and_the_merged_model(
    tiny_folder: Path, tiny_untied_folder: Path, tmp_path: Path, tied: bool
):
    policy = trained(tiny_folder if tied else tiny_untied_folder, merge=True)
    policy.export(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "merged",
    }
    with torch.no_grad():
        logits = policy.network.model(ROWS.input_ids).logits
        for folder in (tmp_path, tmp_path / "merged"):
            found = AutoModelForCausalLM.from_pretrained(folder)(ROWS.input_ids).logits
            assert torch.allclose(found, logits, atol=1e-5)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied
    assert {name for name, _ in merged.named_parameters()} == {
        name for name, _ in load_model(str(tiny_folder if tied else tiny_untied_folder)).named_parameters()
    }


def test_layers_that_there_are_not_are_named(tiny_folder: Path):
    with pytest.raises(UserError, match=r"lora.targets must be among down_proj, .*, got lm_head, qq_proj"):
        network(tiny_folder, targets=["qq_proj", "q_proj", "lm_head"])
    assert len(network(tiny_folder, targets=["q_proj"])._layers) == 2


LORA = ("lora.rank=4", "trainer.learning_rate=2e-2", "constraint.accept=all", "checkpoint.every=1")


@pytest.mark.slow
def test_a_whole_run_learns_resumes_and_leaves_what_loads(toy: Toy, tmp_path: Path):
    schedule = "trainer.schedule=constant"
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert toy.run(whole, *LORA, "lora.merge=true", schedule, "trainer.steps=3") == 0
    assert toy.run(halves, *LORA, "lora.merge=true", schedule, "trainer.steps=1") == 0
    assert toy.run(halves, *LORA, "lora.merge=true", schedule, "trainer.steps=3", resume=True) == 0
    assert timeless(halves) == timeless(whole)
    rows = metrics(whole)
    assert rows[0]["policy/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["policy/kl_to_reference"] > 1e-3  # measured against the same weights without the adapter
    assert rows[-1]["refiner/accepted_fraction"] > 0
    for folder in (whole / "final", whole / "final" / "merged"):
        assert AutoModelForCausalLM.from_pretrained(folder) is not None
        assert ChatTokenizer.load(folder).eos_token_id == 2


@pytest.mark.slow
def test_the_refiner_is_the_base_model_however_far_the_policy_went(toy: Toy, tmp_path: Path):
    """Greedy refinements of the same prompt and response are those of the frozen model of a full run."""
    options = ("refiner.temperature=0", "trainer.steps=1")
    assert toy.run(tmp_path / "lora", *LORA, *options) == 0
    assert toy.run(tmp_path / "full", "constraint.accept=all", *options) == 0
    assert without_tokens(rollouts(tmp_path / "lora", 1)) == without_tokens(rollouts(tmp_path / "full", 1))

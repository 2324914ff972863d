"""Scores compared with a direct forward pass: they do not depend on padding, batches, truncation or layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, LlamaForSequenceClassification, LlamaModel

from refinerl.engines.models import load_reward_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.reward_model import RewardModel
from tiny import tiny_model, tiny_tokenizer, write_openrlhf_reward_model

ANSWERS = ["abc", "", "a much longer answer, of another length", "x" * 40]


def prompt(text: str = "Why?") -> Prompt:
    return Prompt("7", text, ({"role": "user", "content": text},), (1,), None)


def completion(text: str) -> Completion:
    return Completion((1,), (), text, "stop")


def load(folder: Path, *, close: bool = True, **options: Any) -> RewardModel:
    encode = partial(ChatTokenizer.load(folder).encode_answered, close=close)
    return RewardModel(load_reward_model(str(folder)), encode, **options)


def direct(folder: Path, ids: list[int], prefix: str = "value_head") -> float:
    """Compute OpenRLHF's formula on one unpadded row: trunk, head, last position."""
    weights = load_file(folder / "model.safetensors")
    trunk = LlamaModel(AutoConfig.from_pretrained(folder)).eval()
    trunk.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    with torch.no_grad():
        hidden = trunk(torch.tensor([ids])).last_hidden_state
    return float((hidden @ weights[f"{prefix}.weight"].T)[0, -1, 0])


def values(rewards: list[Reward | None]) -> list[float]:
    return [reward.value for reward in rewards if reward is not None]


@pytest.mark.parametrize("prefix", ["value_head", "score"])
@pytest.mark.parametrize("batch", [1, 3])
def test_openrlhfs_layout_scores_as_a_direct_forward(tmp_path: Path, prefix: str, batch: int) -> None:
    folder = write_openrlhf_reward_model(tmp_path, prefix=prefix)
    rewards = load(folder, batch=batch)([prompt()] * 4, [completion(text) for text in ANSWERS])
    tokenizer = tiny_tokenizer()
    expected = []
    for text in ANSWERS:
        row = f"<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>"
        expected.append((direct(folder, tokenizer.encode(row), prefix) + 0.97) / 3.51)
    assert values(rewards) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


@pytest.mark.parametrize("normalize", [True, False, None])
def test_normalisation(tmp_path: Path, normalize: bool | None) -> None:
    folder = write_openrlhf_reward_model(tmp_path, mean=2.0, std=4.0)
    model = load(folder, normalize=normalize)
    assert (model.mean, model.std) == ((0.0, 1.0) if normalize is False else (2.0, 4.0))
    raw = load(folder, normalize=False)
    (scored,), (bare,) = (values(m([prompt()], [completion("abc")])) for m in (model, raw))
    assert scored == pytest.approx((bare - model.mean) / model.std)


@pytest.mark.parametrize("std", [0.0, float("nan"), None])
def test_normalisation_without_a_usable_deviation(tmp_path: Path, std: Any) -> None:
    folder = write_openrlhf_reward_model(tmp_path, std=std)
    with pytest.raises(UserError, match=r"reward_model.normalize needs the mean and the standard deviation"):
        load(folder, normalize=True)


def test_left_and_right_padding_give_the_same_score(tmp_path: Path) -> None:
    model = load(write_openrlhf_reward_model(tmp_path))
    rows = [[5, 6, 7, 2], [9, 10, 11, 12, 13, 14, 2], [8, 2]]

    def padded(left: bool, filler: int) -> tuple[Tensor, Tensor]:
        ids, mask = torch.full((3, 9), filler), torch.zeros(3, 9, dtype=torch.int64)
        for i, row in enumerate(rows):
            place = slice(9 - len(row), 9) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return ids, mask

    alone = [model.score(torch.tensor([row]), torch.ones(1, len(row))).item() for row in rows]
    for filler in (0, 2, 77):  # also where the padding is the EOS, which ends the rows too
        for left in (True, False):
            assert model.score(*padded(left, filler)).tolist() == pytest.approx(alone, abs=1e-5)


def test_the_head_computes_in_float32(tmp_path: Path) -> None:
    """Answers that differ a little then have rewards that differ a little."""
    folder = write_openrlhf_reward_model(tmp_path)
    model = load_reward_model(str(folder), dtype="bfloat16")
    ids = torch.tensor([tiny_tokenizer().encode(text) for text in ("abc", "abd")])
    mask = torch.ones_like(ids)
    scores = RewardModel(model, lambda messages: (), normalize=False).score(ids, mask)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    expected = hidden.double() @ model.score.weight.double().T
    assert hidden.dtype == torch.bfloat16
    assert scores.tolist() == pytest.approx(expected[:, 0].tolist(), rel=1e-6)


@pytest.mark.parametrize("ending", ["", "\n\n", "<|im_end|>\n"])
def test_a_conversation_ends_as_openrlhf_trained_it(ending: str) -> None:
    """OpenRLHF's RewardDataset strips line breaks, and appends a space and the EOS to a text without one."""
    template = "{% for m in messages %}{{ m.content }}{% endfor %}" + ending
    tokenizer = ChatTokenizer(tiny_tokenizer(chat_template=template))
    ids = tokenizer.encode_answered(({"role": "assistant", "content": "abc"},), close=True)
    space = () if "im_end" in ending else tokenizer.encode(" ")
    assert ids == (*tokenizer.encode("abc"), *space, tokenizer.eos_token_id)


def test_transformers_layout(tmp_path: Path) -> None:
    config = tiny_model().config
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        classifier = LlamaForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    rewards = load(tmp_path, close=False)([prompt()] * 2, [completion("abc"), completion("no")])
    for text, value in zip(("abc", "no"), values(rewards), strict=True):
        row = f"<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"
        with torch.no_grad():
            logits = classifier(torch.tensor([tokenizer.encode(row)])).logits
        assert value == pytest.approx(float(logits[0, 0]), abs=1e-5)


def test_a_classifier_that_pools_by_itself(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = BertForSequenceClassification(BertConfig(vocab_size=260, num_labels=1, **sizes)).eval()
    classifier.save_pretrained(tmp_path)
    model = RewardModel(load_reward_model(str(tmp_path)), lambda messages: [5, *messages[-1]["content"].encode()])
    rewards = model([prompt()] * 2, [completion("abc"), completion("a")])
    with torch.no_grad():
        alone = classifier(torch.tensor([[5, 97]])).logits
    assert values(rewards)[1] == pytest.approx(float(alone), abs=1e-5)


def test_long_inputs_are_cut_at_their_start_and_counted(tmp_path: Path) -> None:
    folder = write_openrlhf_reward_model(tmp_path)
    model = load(folder, max_length=20, normalize=False)
    rewards = model([prompt("a" * 99), prompt("?")], [completion("abc"), completion("")])
    row = f"<|im_start|>user\n{'a' * 99}<|im_end|>\n<|im_start|>assistant\nabc<|im_end|>"
    assert values(rewards)[0] == pytest.approx(direct(folder, tiny_tokenizer().encode(row)[-20:]), abs=1e-5)
    assert model.telemetry() == {"reward_model/truncated": 1.0}
    assert model.telemetry() == {"reward_model/truncated": 0.0}
    longer = load(folder, max_length=40)
    longer([prompt("a" * 99), prompt("?")], [completion("abc"), completion("")])
    assert longer.telemetry() == {"reward_model/truncated": 0.5}


def test_a_model_without_a_head(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"is no reward model: its weights hold no head \(score.weight is missing\)"):
        load_reward_model(str(write_openrlhf_reward_model(tmp_path, head=False)))
    with pytest.raises(UserError, match="its weights hold no head"):
        load_reward_model(str(tiny_folder))


def test_a_model_that_lacks_weights_of_its_trunk(tmp_path: Path) -> None:
    folder = write_openrlhf_reward_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights, such as model.norm.weight"):
        load_reward_model(str(folder))


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    folder = write_openrlhf_reward_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["value_head.weight"][0, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="the reward model gave nan for an answer to prompt 7"):
        load(folder)([prompt()], [completion("abc")])

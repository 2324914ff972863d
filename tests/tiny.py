"""A tiny randomly initialised Llama and its tokenizer, made in a fraction of a second: tests run on the real thing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from refinerl.records import Rows

Model = TypeVar("Model", bound=PreTrainedModel)
PAD, EOS = "<|pad|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(
    *, alphabet: str | None = None, chat_template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """One token per byte of UTF-8, or one per character of `alphabet` (others become `<unk>`).

    ids: 0 `<|pad|>`, 1 `<|im_start|>`, 2 `<|im_end|>` (EOS), 3 `<unk>`, then the alphabet in its order.
    """
    specials = [PAD, "<|im_start|>", EOS, "<unk>"]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet()) if alphabet is None else list(alphabet)
    vocab = {symbol: i for i, symbol in enumerate(specials + symbols)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    if alphabet is None:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
    else:
        inner.decoder = decoders.Fuse()
    inner.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS, pad_token=PAD, unk_token="<unk>")
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_model(
    vocab_size: int = 260,
    *,
    tied: bool = True,
    hidden: int = 32,
    layers: int = 2,
    context: int = 512,
    seed: int = 0,
    scale: float = 0.3,
) -> LlamaForCausalLM:
    """A float32 Llama of about 30 thousand weights.

    `scale` is the standard deviation of its random weights: 0.3 gives it opinions (greedy outputs that differ between
    prompts), 0.02 nearly uniform next tokens.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        initializer_range=scale,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def halved(model: Model) -> Model:
    """In bfloat16 as `from_pretrained` has it: the frequencies of the positions stay in float32. Changed in place."""
    for p in model.parameters():
        p.data = p.data.bfloat16()
    return model


def write_tiny(
    folder: Path | str,
    *,
    tied: bool = True,
    alphabet: str | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
    hidden: int = 32,
    layers: int = 2,
    context: int = 512,
    seed: int = 0,
    scale: float = 0.3,
) -> Path:
    """Write model and tokenizer as `from_pretrained` reads them; returns the folder."""
    tokenizer = tiny_tokenizer(alphabet=alphabet, chat_template=chat_template)
    model = tiny_model(len(tokenizer), tied=tied, hidden=hidden, layers=layers, context=context, seed=seed, scale=scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_rows(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    refined: Sequence[int] = (),
) -> Rows:
    """Such rows, right-padded; those whose index is in `refined` are of ỹ, the others of y."""
    rows = len(prompts)
    wide, long = max(map(len, completions)), max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids, targets = torch.zeros(rows, long, dtype=torch.int64), torch.zeros(rows, wide, dtype=torch.int64)
    attention, mask = torch.zeros(rows, long, dtype=torch.bool), torch.zeros(rows, wide, dtype=torch.bool)
    for i, (p, c) in enumerate(zip(prompts, completions, strict=True)):
        ids[i, : len(p) + len(c)] = torch.tensor([*p, *c])
        attention[i, : len(p) + len(c)] = True
        targets[i, : len(c)] = torch.tensor(c)
        mask[i, : len(c)] = True
    is_constraint = torch.tensor([row in refined for row in range(rows)])
    return Rows(
        input_ids=ids,
        attention_mask=attention,
        prompt_lengths=torch.tensor([len(p) for p in prompts]),
        targets=targets,
        mask=mask,
        is_constraint=is_constraint,
        origin=torch.arange(rows),
        group=torch.arange(rows),
        place=torch.arange(rows),
        weight=torch.ones(rows, dtype=torch.float64),
        reward=torch.zeros(rows, dtype=torch.float64),
        surrogate=~is_constraint,
        sampling_logprobs=torch.zeros(rows, wide),
    )


def write_openrlhf_reward_model(
    folder: Path | str,
    *,
    alphabet: str | None = None,
    prefix: str = "value_head",
    mean: float = -0.97,
    std: float = 3.51,
    seed: int = 3,
    head: bool = True,
) -> Path:
    """A reward model of two layers as OpenRLHF saves it, mean and std in its config; returns the folder.

    `head=False` leaves the head out.
    """
    tokenizer = tiny_tokenizer(alphabet=alphabet)
    trunk = tiny_model(len(tokenizer), seed=seed).model
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in trunk.state_dict().items()}
    if head:
        generator = torch.Generator().manual_seed(seed)
        weights[f"{prefix}.weight"] = torch.randn(1, trunk.config.hidden_size, generator=generator)
    tokenizer.save_pretrained(folder)
    config = trunk.config.to_dict() | {
        "architectures": ["RewardModel"],
        "mean": mean,
        "std": std,
        "normalize_reward": False,
        "value_head_prefix": prefix,
    }
    (Path(folder) / "config.json").write_text(json.dumps(config))
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    return Path(folder)

"""`retokenize` with tokenizers of the two common kinds, trained here on a few lines."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from refinerl.alignment import align, retokenize

LINES = [
    "def add(first, second):\n    return first + second\n",
    "for index in range(10):\n    print(index, 'naïve café ☕ 日本語')\n",
    "The quick brown fox jumps over the lazy dog. The dog sleeps.\n\n",
]
EOS = "<|end|>"


class Codec(NamedTuple):
    tokenizer: Tokenizer

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def byte_level():
    """As GPT-2, Llama 3 and Qwen have it: characters may be cut into bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return Codec(tokenizer)


def metaspace():
    """As Llama 2 has it: a space is put before every text and taken away again; unknown characters become bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=[EOS, "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    trained = json.loads(tokenizer.to_str())
    vocabulary = trained["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return Codec(Tokenizer.from_str(json.dumps(trained)))


CODECS = {"byte_level": byte_level(), "metaspace": metaspace()}


@pytest.fixture(params=CODECS)
def codec(request):
    return CODECS[request.param]


def test_a_copy_keeps_every_token_but_the_end(codec):
    for text in (*LINES, "The dog", ""):
        ids = [*codec.encode(text)]
        eos = codec.tokenizer.token_to_id(EOS)
        assert retokenize(codec.decode(ids), [*ids, eos], codec.encode, codec.decode) == tuple(ids)


def test_a_copy_of_an_unusual_tokenization_keeps_it():
    codec = CODECS["byte_level"]
    single = [codec.tokenizer.token_to_id(letter) for letter in "return"]
    assert codec.encode("return") != single
    assert retokenize("return", single, codec.encode, codec.decode) == tuple(single)


def test_an_edit_keeps_the_tokens_before_it(codec):
    text = LINES[0]
    original = codec.encode(text)
    edited = text.replace("first + second", "first - second")
    refined = retokenize(edited, original, codec.encode, codec.decode)
    assert codec.decode(refined) == edited
    (alignment,) = align([original], [refined])
    common = next(i for i, (a, b) in enumerate(zip(text, edited, strict=True)) if a != b)
    assert len(codec.decode(original[: alignment.prefix + 1])) > common  # not one token more would fit
    assert alignment.distance <= 6


def test_what_is_appended_leaves_the_rest_alone(codec):
    original = codec.encode(LINES[2].strip())
    text = codec.decode(original) + " The end."
    refined = retokenize(text, original, codec.encode, codec.decode)
    assert refined[: len(original)] == tuple(original)
    assert codec.decode(refined) == text


def test_a_character_cut_in_two_is_not_kept_in_half():
    codec = CODECS["byte_level"]
    original = codec.encode("日")
    assert len(original) > 1
    refined = retokenize("旦", original, codec.encode, codec.decode)  # shares its first bytes with 日
    assert codec.decode(refined) == "旦"
    cut = [*codec.encode("a日")][:-1]  # generation ended within the character
    assert retokenize(codec.decode(cut), cut, codec.encode, codec.decode) == tuple(cut)


def test_a_special_token_within_is_kept_where_more_follows():
    codec = CODECS["byte_level"]
    eos = codec.tokenizer.token_to_id(EOS)
    original = [*codec.encode("The dog"), eos, *codec.encode(" sleeps")]
    assert retokenize("The dog sleeps", original, codec.encode, codec.decode) == tuple(original)


def test_an_empty_text_has_no_tokens(codec):
    assert retokenize("", codec.encode("The dog"), codec.encode, codec.decode) == ()
    assert retokenize("The dog", [], codec.encode, codec.decode) == tuple(codec.encode("The dog"))


def test_a_tokenizer_that_loses_text_falls_back_to_what_it_makes_of_the_whole():
    def encode(text):
        return [ord(letter) for letter in text.lower()]

    def decode(ids):
        return "".join(map(chr, ids))

    assert retokenize("ABC", encode("abd"), encode, decode) == tuple(encode("abc"))


@given(st.sampled_from(sorted(CODECS)), st.text(max_size=40), st.text(max_size=40), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_always_decodes_to_the_text_where_the_tokenizer_can(name, before, after, seed):
    codec = CODECS[name]
    random = np.random.default_rng(seed)
    line = LINES[seed % 3]
    cut = sorted(random.integers(0, len(line), 2))
    original = codec.encode(before + line)
    text = codec.decode(codec.encode(before + line[: cut[0]] + after + line[cut[1] :]))
    refined = retokenize(text, original, codec.encode, codec.decode)
    if codec.decode(codec.encode(text)) == text:
        assert codec.decode(refined) == text
    copy = codec.decode(original)
    again = retokenize(copy, original, codec.encode, codec.decode)
    assert again == tuple(original[: len(again)])
    assert codec.decode(again) == copy

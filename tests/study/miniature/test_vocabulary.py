"""The tokenizer: a token per word, and any ASCII text in and out."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from refinerl.engines.tokenization import ChatTokenizer
from refinerl.study.miniature import corpus
from refinerl.study.miniature.problems import CORPUS, draw
from refinerl.study.miniature.vocabulary import CONTEXT, UNKNOWN, save_tokenizer, words


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return ChatTokenizer.load(folder)


def test_a_token_for_each_word(tokenizer: ChatTokenizer):
    source = "def f(x):\n    x = x[-2:]\n    x = [v ** 2 for v in x]\n    return x"
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(source)]
    assert pieces == [
        *("def f(x):\n", "    x = ", "x", "[", "-", "2", ":", "]", "\n"),
        *("    x = ", "[", "v", " ** ", "2", " for ", "v", " in ", "x", "]", "\n", "    return x"),
    ]  # fmt: skip
    assert [tokenizer.decode([t]) for t in tokenizer.encode("every 2-th; sort unique")] == [
        *("every ", "2", "-th", "; ", "sort unique")
    ]


def test_texts_come_back_as_they_were(tokenizer: ChatTokenizer):
    rng = random.Random(0)
    for _ in range(200):
        written = corpus.attempt(draw(rng, CORPUS), rng)
        asked = corpus.request_to_correct(written.exercise, written.source)
        assert tokenizer.decode(tokenizer.encode(asked)) == asked
        assert len(tokenizer.encode(asked)) + len(tokenizer.encode(written.source)) < CONTEXT
    printable = "".join(sorted(set(string.printable) - set("\t\r\x0b\x0c")))
    assert tokenizer.decode(tokenizer.encode(printable)) == printable
    assert tokenizer.inner.convert_tokens_to_ids(UNKNOWN) in tokenizer.encode("é")


def test_the_ids_end_and_pad(tokenizer: ChatTokenizer):
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(tokenizer.inner) == len(words()) == len(set(words()))
    assert tokenizer.encode_chat([{"role": "user", "content": "sort"}]) == tokenizer.encode("sort")

"""Text to tokens and back, the ids that end a completion, and what is refused."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, GenerationConfig

from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from tiny import tiny_tokenizer, write_tiny

USER = [{"role": "user", "content": "Say hé"}]


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_chat_ends_where_the_answer_begins(tiny_folder: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_folder)
    ids = tokenizer.encode_chat(USER)
    assert tokenizer.inner.decode(ids) == "<|im_start|>user\nSay hé<|im_end|>\n<|im_start|>assistant\n"
    assert ids.count(2) == 1


@pytest.mark.parametrize("text", ["", "x", "  two  spaces ", "def f():\n\treturn 'ỹ'\n\n", "1234 5"])
def test_encode_and_decode_are_inverse(tiny_folder: Path, text: str) -> None:
    tokenizer = ChatTokenizer.load(tiny_folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_a_bare_text_begins_with(tiny_folder: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_folder)
    assert tokenizer.beginning == ()
    inner = tokenizer.inner
    inner.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    assert inner.encode("a") == [1, *tokenizer.encode("a"), 2]
    assert tokenizer.beginning == (1,)


def test_decode_leaves_special_tokens_out(tiny_folder: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_folder)
    assert tokenizer.decode((*tokenizer.encode("ab"), 2)) == "ab"


def test_special_tokens_are_those_that_decode_leaves_out() -> None:
    inner = tiny_tokenizer()
    inner.add_tokens([AddedToken("<|eot|>", special=True), AddedToken("<think>", special=False)])
    tokenizer = ChatTokenizer(inner, extra_eos_ids=[9])
    marked = {number for number in range(len(inner)) if not tokenizer.decode([number])}
    assert marked == {0, 1, 2, 3, len(inner) - 2}
    assert tokenizer.special_token_ids == marked | {9}


def test_eos_ids_come_from_tokenizer_and_generation_config(folder: Path) -> None:
    assert ChatTokenizer.load(folder).eos_token_ids == frozenset({2})
    GenerationConfig(eos_token_id=[1, 2]).save_pretrained(folder)
    tokenizer = ChatTokenizer.load(folder)
    assert tokenizer.eos_token_ids == frozenset({1, 2})
    assert tokenizer.eos_token_id == 2
    (folder / "generation_config.json").unlink()
    config = AutoConfig.from_pretrained(folder)
    config.eos_token_id = 5
    config.save_pretrained(folder)
    assert ChatTokenizer.load(folder).eos_token_ids == frozenset({2, 5})
    (folder / "config.json").unlink()
    assert ChatTokenizer.load(folder).eos_token_ids == frozenset({2})


def test_pad_falls_back_to_eos() -> None:
    assert ChatTokenizer(tiny_tokenizer()).pad_token_id == 0
    without = tiny_tokenizer()
    without.pad_token = None
    assert ChatTokenizer(without).pad_token_id == 2


def test_a_tokenizer_without_any_end_is_refused() -> None:
    without = tiny_tokenizer()
    without.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        ChatTokenizer(without)
    assert ChatTokenizer(without, extra_eos_ids=[3]).eos_token_id == 3


def test_saved_and_loaded_is_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_folder, chat_template="{{ messages[0]['content'] }}")
    tokenizer.save(tmp_path)
    again = ChatTokenizer.load(tmp_path)
    assert again.encode_chat(USER) == tokenizer.encode_chat(USER) == tokenizer.encode("Say hé")


def test_without_chat_template_one_can_be_given(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", chat_template=None)
    with pytest.raises(UserError, match="has no chat template: give one with chat_template="):
        ChatTokenizer.load(folder).encode_chat(USER)
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    path = tmp_path / "template.jinja"
    path.write_text(template)
    for given in (template, path, str(path)):
        tokenizer = ChatTokenizer.load(folder, chat_template=given)
        assert tokenizer.decode(tokenizer.encode_chat(USER)) == "[Say hé]"
    with pytest.raises(UserError, match="chat_template must be a Jinja template or a readable file, got 'nowhere'"):
        ChatTokenizer.load(folder, chat_template="nowhere")


@pytest.mark.parametrize("template", ["{{ raise_exception('no system message') }}", "{% for %}"])
def test_a_template_that_fails_is_the_users_error(tiny_folder: Path, template: str) -> None:
    with pytest.raises(UserError, match="chat template cannot render"):
        ChatTokenizer.load(tiny_folder, chat_template=template).encode_chat(USER)


def test_a_templates_date_is_the_given_one(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}"
    folder = write_tiny(tmp_path, chat_template=template)
    asked = ({"role": "user", "content": "abc"},)
    tokenizer = ChatTokenizer.load(folder, date=date(2024, 2, 29))
    assert tokenizer.decode(tokenizer.encode_chat(asked)) == "29 Feb 2024: abc"
    given = ChatTokenizer.of(tokenizer.inner, date=date(2024, 2, 29))
    assert given.encode_chat(asked) == given.encode_answered(asked) == tokenizer.encode_chat(asked)


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot load a tokenizer from '.*nowhere'"):
        ChatTokenizer.load(tmp_path / "nowhere")

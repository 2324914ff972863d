"""The tokenizer of the miniature: one token per word of a problem and per piece of a program."""

from __future__ import annotations

import re
import string
from pathlib import Path

from refinerl.study.miniature.corpus import LISTS, LOOPS
from refinerl.study.miniature.operations import OPERATIONS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CONTEXT = 256
"""The longest text, in tokens."""
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Passes the messages through: the prompts of the task and the refiner are the whole text."""

_FRAME = (
    "\nQUESTION:\n", "\nUse Call-Based format\nANSWER:\n", "\n\nWrite a function named f.", "\n<try>\n", "\n</try>",
    "; ",
)  # fmt: skip
_WORDS = tuple(dict.fromkeys(part for each in OPERATIONS.values() for part in each.words.split("K") if part))
CODE = (
    *(f"def f({name}):\n" for name in LISTS), *(f"    {name} = " for name in LISTS),
    *(f"    return {name}" for name in LISTS), *LISTS, *LOOPS, *"1234",
    "\n", "[", "]", "(", ")", ":", "[::", "-1", "-", ", ", " + ", " - ", " * ", " // ", " / ", " % ", " ** ",
    " == ", " != ", " <= ", " < ", " > ", " >= ", " for ", " in ", " if ", "sorted", "reversed", "list", "sum", "len",
    "min", "max", "range", "set", "dict", ".fromkeys", ".count", "reverse=True",
)  # fmt: skip
"""The pieces of programs."""
_CHARACTERS = tuple(string.digits + string.ascii_letters + string.punctuation + " ")


def words() -> list[str]:
    """Return the vocabulary in the order of its ids. Every ASCII text can be encoded, if need be letter by letter."""
    return list(dict.fromkeys((PAD, EOS, UNKNOWN, *_FRAME, *_WORDS, *CODE, *_CHARACTERS)))


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer to a folder, for `from_pretrained`. At each place it takes the longest word that fits."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = words()
    longest_first = sorted(vocabulary[3:], key=lambda word: (-len(word), word))
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)

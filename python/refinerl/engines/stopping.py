"""Cutting a completion at its first stop string, which is not part of it."""

from __future__ import annotations

from collections.abc import Sequence

from refinerl.engines.tokenization import ChatTokenizer


def cut_at_stop(tokenizer: ChatTokenizer, token_ids: Sequence[int], stop: Sequence[str]) -> tuple[int, str] | None:
    """Count the tokens before the first stop string and give the text before it; None if there is no stop string.

    The last token kept may reach into the stop string; the text never does.
    """
    whole = tokenizer.decode(token_ids)
    found = [whole.find(text) for text in stop if text in whole]
    if not found:
        return None
    text = whole[: min(found)]
    kept = len(token_ids)
    while kept and len(tokenizer.decode(token_ids[: kept - 1])) >= len(text):
        kept -= 1
    return kept, text

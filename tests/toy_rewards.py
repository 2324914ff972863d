"""Reward functions for tests, in TRL's signature."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import torch

LENGTH = 6


def text_of(completion):
    """Return the text of a completion, which is a message where the prompt is a conversation."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def share_of_a(prompts, completions, **_):
    """Reward the share of six characters that are “a”."""
    return [text_of(completion).count("a") / LENGTH for completion in completions]


def any_a(prompts, completions, **_):
    """Reward any “a”, so that many groups have equal rewards."""
    return [float("a" in text_of(completion)) for completion in completions]


def constant(prompts, completions, **_):
    return [0.5 for _ in completions]


def never(prompts, completions, **_):
    """Give no sample a reward."""
    return [None for _ in completions]


def none_for_odd(prompts, completions, **_):
    """Give every second sample no reward."""
    return [None if i % 2 else share for i, share in enumerate(share_of_a(prompts, completions))]


def by_column(prompts, completions, wanted, **_):
    """Reward the character that a column of the data set names."""
    return [text_of(c).count(w) / LENGTH for c, w in zip(completions, wanted, strict=True)]


async def later(prompts, completions, **_):
    return share_of_a(prompts, completions)


def fills_the_disk(prompts, completions, **_):
    """Put /dev/full where the next step's rollouts will be written."""
    trap = os.environ.get("TOY_FULL_DISK")
    if trap and not Path(trap).is_symlink():
        Path(trap).symlink_to("/dev/full")
    return share_of_a(prompts, completions)


def hangs_on_the_second_rank(prompts, completions, **_):
    """Hang once the file that TOY_HANG_AFTER names exists."""
    if os.environ["RANK"] == "1" and "TOY_HANG_AFTER" in os.environ and Path(os.environ["TOY_HANG_AFTER"]).exists():
        threading.Event().wait()
    return share_of_a(prompts, completions)


def fails_on_the_second_rank(prompts, completions, **_):
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("the user's own mistake")
    return share_of_a(prompts, completions)


def waits(prompts, completions, **_):
    """Wait from the third call on while the file that TOY_WAIT names exists."""
    _calls.append(None)
    while len(_calls) > 2 and "TOY_WAIT" in os.environ and Path(os.environ["TOY_WAIT"]).exists():
        time.sleep(0.01)
    return share_of_a(prompts, completions)


_calls: list[None] = []


def wants_more_memory_than_there_is(prompts, completions, **_):
    return torch.empty(2**50).tolist()


def not_a_number(prompts, completions, **_):
    return [float("nan") for _ in completions]

"""A reward function that fails from the call that REWARD names: `hangs:3` hangs at the third call in the process."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

import toy_rewards
from chaos import events

calls = itertools.count(1)


def hangs(good: list[float]) -> list[float]:
    threading.Event().wait()
    return good


def computes(good: list[float]) -> list[float]:
    while True:
        pass


async def awaits(good: list[float]) -> list[float]:
    await asyncio.Event().wait()
    return good


def hangs_natively(good: list[float]) -> list[float]:
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)
    return good


def raises(good: list[float]) -> list[float]:
    raise ZeroDivisionError("the user's own mistake")


def quits(good: list[float]) -> list[float]:
    sys.exit(3)


async def cancels(good: list[float]) -> list[float]:
    raise asyncio.CancelledError


def wants_memory(good: list[float]) -> list[float]:
    return torch.empty(2**50).tolist()


KINDS: dict[str, Callable[[list[float]], Any]] = {
    "hangs": hangs,
    "computes": computes,
    "awaits": awaits,
    "hangs natively": hangs_natively,
    "raises": raises,
    "quits": quits,
    "cancels": cancels,
    "wants memory": wants_memory,
    "too few": lambda good: good[:-1],
    "too many": lambda good: [*good, 0.0],
    "without end": lambda good: itertools.repeat(0.5),
    "strings": lambda good: [str(value) for value in good],
    "a string": lambda good: "0.5" * len(good),
    "nan": lambda good: [float("nan") for _ in good],
    "infinity": lambda good: [float("inf") for _ in good],
    "huge": lambda good: [10**400 for _ in good],
    "a matrix": lambda good: torch.zeros(len(good), 2),
    "nothing": lambda good: None,
    "none everywhere": lambda good: [None for _ in good],
}


def reward(prompts: Any, completions: Any, **_: Any) -> Any:
    good = toy_rewards.share_of_a(prompts, completions)
    kind, _, call = os.environ.get("REWARD", "").partition(":")
    if kind and next(calls) >= int(call):
        events.happened()
        return KINDS[kind](good)
    return good

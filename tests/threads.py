"""Ranks as threads: what ranks decide together, tested without a launcher."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from refinerl.contracts import World

T = TypeVar("T")


class ThreadWorld:
    """One rank of several threads. A rank that makes another number of calls than the others breaks the barrier."""

    def __init__(self, rank: int, size: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.local_size = rank, size, size
        self._shared, self._barrier = shared, barrier

    def all_gather_object(self, value: Any) -> list[Any]:
        self._shared[self.rank] = value
        self._barrier.wait(10)
        found = list(self._shared)
        self._barrier.wait(10)
        return found

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        stacked = torch.stack(self.all_gather_object(value))
        return stacked.sum(0) if op == "sum" else stacked.amax(0)

    def barrier(self) -> None:
        self.all_gather_object(None)


def on_ranks(size: int, work: Callable[[World], T]) -> list[T]:
    """What each rank returns."""
    shared: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def run(rank: int) -> T:
        try:
            return work(ThreadWorld(rank, size, shared, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))

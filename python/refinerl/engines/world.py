"""The ranks of a run: one process, or those that torchrun or DeepSpeed's launcher started."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor

from refinerl.contracts import WorldOfOne as WorldOfOne

dist: Any = torch.distributed
"""Its types are not complete."""


@dataclass(frozen=True)
class Launched:
    """What a launcher says in the environment: torchrun and DeepSpeed's launcher use the same names."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    """Where rank 0 runs."""

    @staticmethod
    def read() -> Launched | None:
        """None for a process that was started by hand."""
        env = os.environ
        if "RANK" not in env or "WORLD_SIZE" not in env or "MASTER_ADDR" not in env:
            return None
        size = int(env["WORLD_SIZE"])
        return Launched(
            rank=int(env["RANK"]),
            size=size,
            local_rank=int(env.get("LOCAL_RANK", "0")),
            local_size=int(env.get("LOCAL_WORLD_SIZE", env.get("LOCAL_SIZE", size))),
            address=env["MASTER_ADDR"],
        )


class Ranks:
    """Several processes, joined by torch.distributed: gloo for tensors on the CPU, NCCL for those on GPUs.

    Args:
        launched: who this process is among them.
        store: where they find each other.
        timeout: seconds after which a collective that some rank never joined fails on the others.
    """

    def __init__(self, launched: Launched, store: Any, timeout: float) -> None:
        self.rank = launched.rank
        self.size = launched.size
        self.local_size = launched.local_size
        _join(store, launched.rank, launched.size, launched.local_rank, timeout)

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum or maximum over ranks, a new tensor on the CPU of the same type."""
        reduced = value.detach().cpu().clone()
        dist.all_reduce(reduced, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[op])
        return reduced

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's value (pickled), in rank order."""
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=_cpu_group())
        return gathered

    def barrier(self) -> None:
        """Wait for all."""
        self.all_reduce(torch.zeros(1))


def join_alone() -> None:
    """A group of this process alone, for engines that insist on one."""
    if not dist.is_initialized():
        _join(dist.HashStore(), 0, 1, 0, 60.0)


def leave() -> None:
    """Undoes the joining. Groups of others stay: vLLM reuses its own."""
    if _GROUPS and dist.is_initialized():
        dist.destroy_process_group()
    _GROUPS.clear()


def has_joined() -> bool:
    """Whether this process ever joined a group here, alone or with others."""
    return _joined


_GROUPS: list[Any] = []
_joined = False


def _join(store: Any, rank: int, size: int, local_rank: int, timeout: float) -> None:
    global _joined
    _joined = True
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    limit = datetime.timedelta(seconds=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    # Objects travel as bytes on the CPU: a group of gloo alone keeps them from the GPU.
    _GROUPS[:] = [None if backend == "gloo" else dist.new_group(backend="gloo", timeout=limit)]


def _cpu_group() -> Any:
    return _GROUPS[0] if _GROUPS else None

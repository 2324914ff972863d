"""The ranks of a run: one process, or those that torchrun or DeepSpeed's launcher started."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor

from refinerl.contracts import WorldOfOne as WorldOfOne
from refinerl.engines import devices
from refinerl.engines.launched import Launched as Launched
from refinerl.errors import UserError

dist: Any = torch.distributed
"""Typed as Any, because its annotations are incomplete."""

_CPU = torch.device("cpu")

_PATIENCE = 1.05
"""Rank 0 waits this many times as long as the others, so that it is still there to report that they gave up."""


class Ranks:
    """Several processes, joined by torch.distributed: gloo for tensors on the CPU, NCCL for those on GPUs.

    Args:
        launched: this process's place among them.
        store: the store over which they find each other.
        timeout: seconds after which a collective fails if a rank has not joined it.
        device: this process's, already its current one.

    Raises:
        UserError: two ranks have the same device, on which NCCL would hang. Rank 0 raises it for all.
    """

    def __init__(self, launched: Launched, store: Any, timeout: float, device: torch.device = _CPU) -> None:
        self.rank = launched.rank
        self.size = launched.size
        self.local_size = launched.local_size
        _compare(store, launched, device)
        _join(store, launched.rank, launched.size, device.type, timeout)

    def all_reduce(self, value: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """Return the sum or maximum over the ranks, a new tensor of the same type on the CPU."""
        reduced = value.detach().cpu().clone()
        dist.all_reduce(reduced, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[op])
        return reduced

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return every rank's value (pickled), in rank order."""
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=_cpu_group())
        return gathered

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_reduce(torch.zeros(1))


def join_alone() -> None:
    """Make a process group of this process alone, for engines that need one."""
    if not dist.is_initialized():
        _join(dist.HashStore(), 0, 1, devices.accelerator(), 60.0)


def leave() -> None:
    """Destroy the groups that were made here. Those that others made stay: vLLM reuses its own."""
    if _GROUPS and dist.is_initialized():
        (_destroyers.pop() if _destroyers else dist.destroy_process_group)()
    _GROUPS.clear()
    _set_defaults(*_DEFAULTS)
    _destroyers.clear()


def leave_by(destroy: Callable[[], None]) -> None:
    """Make `leave` call this function to destroy the groups, for engines that keep their own references to them."""
    _destroyers[:] = [destroy]


def has_joined() -> bool:
    """Return True if this process has ever joined a group here, alone or with others."""
    return _joined


_GROUPS: list[Any] = []
_destroyers: list[Callable[[], None]] = []
_joined = False
_DEFAULTS = dist.distributed_c10d.default_pg_timeout, dist.distributed_c10d.default_pg_nccl_timeout


def _set_defaults(limit: datetime.timedelta, nccl: datetime.timedelta | None) -> None:
    """Set the time limit of groups that are made without one, as DeepSpeed's are.

    PyTorch's default for NCCL is 10 minutes. When a collective times out, NCCL's watchdog ends the process by SIGABRT.
    To raise instead (TORCH_NCCL_BLOCKING_WAIT) it makes the host wait for every collective, so the lifeline explains
    such an end.
    """
    dist.distributed_c10d.default_pg_timeout, dist.distributed_c10d.default_pg_nccl_timeout = limit, nccl


def _join(store: Any, rank: int, size: int, kind: str, timeout: float) -> None:
    global _joined
    _joined = True
    native = dist.Backend.default_device_backend_map.get(kind, "gloo")
    backend = "gloo" if native == "gloo" else f"cpu:gloo,{kind}:{native}"
    limit = datetime.timedelta(seconds=timeout if rank else timeout * _PATIENCE)
    if size > 1:
        _set_defaults(limit, limit)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    # Objects are sent as bytes on the CPU: a gloo group keeps them off the GPU.
    _GROUPS[:] = [None if backend == "gloo" else dist.new_group(backend="gloo", timeout=limit)]


def _compare(store: Any, launched: Launched, device: torch.device) -> None:
    """Check on rank 0 that all ranks compute on one type of device, and no two on the same device."""
    store.set(f"device/{launched.rank}", f"{device.type} {devices.identity(device)}")
    if launched.rank:
        return
    holder: dict[str, int] = {}
    for rank in range(launched.size):
        kind, _, identity = store.get(f"device/{rank}").decode().partition(" ")
        if kind != device.type:
            raise UserError(
                f"rank 0 computes on {device.type} and rank {rank} on {kind}: see that the machine of each has one for "
                f"all its ranks and set device={device.type}, or set device=cpu"
            )
        if identity in holder:
            raise UserError(
                f"ranks {holder[identity]} and {rank} have the same device ({devices.hardware.card(device).name}, "
                f"{identity}): start as many ranks on a machine as it has, or let each see its own "
                "(CUDA_VISIBLE_DEVICES; Slurm: --gpus-per-task=1)"
            )
        if identity:
            holder[identity] = rank


def _cpu_group() -> Any:
    return _GROUPS[0] if _GROUPS else None

"""Memory that a model in training holds on each rank and on the host, by trainer, type and ZeRO stage.

Derived from the sources of DeepSpeed 0.19.8 and of our trainers; docs/scaling.md has it as a table. P weights, N ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Training:
    """The properties of a trainer that determine its memory."""

    engine: Literal["torch", "deepspeed"] = "torch"
    dtype: DType = "float32"
    stage: int = 0
    """ZeRO stage; 0 for torch."""
    ranks: int = 1
    offload: bool = False
    """True if the optimizer is offloaded to the host."""
    offload_weights: bool = False
    """True if ZeRO-3 offloads the partitions of the weights to the host."""
    pinned: bool = True
    """True if host memory is page-locked where DeepSpeed supports it."""
    accumulate: int = 4
    """Bytes per weight of the accumulated gradient (`data_types.grad_accum_dtype`)."""
    bucket: int = 500_000_000
    """`reduce_bucket_size` in elements; at most the number of weights."""
    overlap: bool = False
    """`overlap_comm`, which doubles the bucket at stage 2."""
    live: int = 1_000_000_000
    """`stage3_max_live_parameters`: weights that are gathered at once."""
    prefetch: int = 50_000_000
    """`stage3_prefetch_bucket_size`."""
    group: int = 1_000_000_000
    """`sub_group_size`: weights that stage 3 updates at once."""
    recompute: bool = False

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return 4 if self.dtype == "float32" else 2

    @staticmethod
    def of(
        engine: Literal["torch", "deepspeed"],
        dtype: DType,
        native: Mapping[str, Any] | None = None,
        *,
        ranks: int = 1,
        recompute: bool = False,
    ) -> Training:
        """Read the properties from a recipe; `native` is its section `deepspeed`."""
        if engine == "torch":
            return Training(engine, dtype, recompute=recompute)
        native = native or {}
        zero = native.get("zero_optimization") or {}
        stage = int(zero.get("stage", 0))
        half = dtype == "bfloat16"
        wanted = (native.get("data_types") or {}).get("grad_accum_dtype", "fp32")
        weights = zero.get("offload_param") or {}
        optimizer = zero.get("offload_optimizer") or {}
        return Training(
            engine,
            dtype,
            stage=stage,
            ranks=ranks,
            offload=stage > 0 and optimizer.get("device", "none") != "none",
            offload_weights=stage == 3 and weights.get("device", "none") != "none",
            pinned=bool(optimizer.get("pin_memory", True)),
            accumulate=4 if not half or wanted in ("fp32", "float32") else 2,
            bucket=int(float(zero.get("reduce_bucket_size", 500_000_000))),
            overlap=stage == 2 and bool(zero.get("overlap_comm", False)),
            live=int(float(zero.get("stage3_max_live_parameters", 1_000_000_000))),
            prefetch=int(float(zero.get("stage3_prefetch_bucket_size", 50_000_000))),
            group=int(float(zero.get("sub_group_size", 1_000_000_000))),
            recompute=recompute,
        )


@dataclass(frozen=True)
class Shares:
    """Bytes on each rank's device."""

    weights: int
    gradients: int
    optimizer: int
    """Both moments of AdamW, and float32 weights if the model computes in bfloat16 or is partitioned."""

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.optimizer


def held(parameters: int, training: Training, *, gradient: bool = False) -> Shares:
    """Count the bytes that a model holds between two steps; with `gradient`, when its gradient is complete.

    Buckets (`buckets`) and temporary memory (`refinerl.run.memory.passing`) are counted separately.
    """
    t, p = training, parameters
    masters = t.dtype == "bfloat16" or t.stage > 0
    optimizer = (12 if masters else 8) * p
    if t.engine == "torch":
        return Shares(t.width * p, 4 * p if gradient else 0, optimizer)
    weights = t.width * p
    if t.stage == 3:
        weights = 0 if t.offload_weights else _share(weights, t)
    optimizer = 0 if t.offload else _share(optimizer, t) if t.stage else optimizer
    return Shares(weights, _gradients(p, t, complete=gradient), optimizer)


def _gradients(p: int, t: Training, *, complete: bool) -> int:
    """Count the bytes of DeepSpeed's gradients on the device."""
    if t.stage == 3:  # one buffer for the whole run, on the device of the optimizer
        return 0 if t.offload else _share(t.accumulate * p, t)
    if t.stage == 1 and t.dtype == "bfloat16" and t.accumulate == 4 and not t.offload:
        return 4 * p  # the optimizer for this case keeps all of them for the whole run
    if not complete:
        return 0
    if t.stage == 2:
        # On the device even if the optimizer is offloaded, if their type differs from that of the weights.
        return 0 if t.offload and t.accumulate == t.width else _share(t.accumulate * p, t)
    return t.accumulate * p


def buckets(parameters: int, training: Training) -> int:
    """Count the bytes of DeepSpeed's communication buckets, which exist during reduction, at stage 3 always."""
    t = training
    if t.engine == "torch" or (t.stage == 0 and t.ranks == 1):
        return 0
    return t.width * min(t.bucket, parameters) * (2 if t.overlap else 1)


@dataclass(frozen=True)
class OnHost:
    """Bytes of one rank in host memory."""

    pinned: int = 0
    """Page-locked."""
    pageable: int = 0

    def __add__(self, other: OnHost) -> OnHost:
        return OnHost(self.pinned + other.pinned, self.pageable + other.pageable)


def on_host(parameters: int, training: Training) -> OnHost:
    """Count the bytes on the host of a model whose optimizer or weights are offloaded."""
    t, mine = training, _share(parameters, training)
    host = OnHost()
    if t.offload and t.stage < 3:  # float32 weights, their gradient and the copy that is sent back; moments
        host += _lock(t, 4 * mine, 4 * mine, t.width * mine) + OnHost(pageable=8 * mine)
    elif t.offload:  # two gradients: the sum, and the optimizer's
        host += _lock(t, 4 * mine, t.accumulate * mine) + OnHost(pageable=12 * mine)
    if t.offload_weights:
        host += _lock(t, t.width * mine)
    return host


def _lock(t: Training, *sizes: int) -> OnHost:
    """Return the host memory of tensors of these sizes. PyTorch rounds page-locked ones up to a power of two."""
    if t.pinned:
        return OnHost(pinned=sum(1 << (size - 1).bit_length() for size in sizes if size))
    return OnHost(pageable=sum(sizes))


def _share(size: int, t: Training) -> int:
    return -(-size // t.ranks)

"""The device memory of one engine among several of a process, and its copy on the host during sleep.

vLLM has one allocator for the process, meant for one engine: it puts all its blocks to sleep at once. Its blocks have
tags, so here each engine has tags of its own, and only its own blocks are unmapped and mapped again.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WEIGHTS, CACHE = "weights", "kv_cache"

_PIECE = 2**21
"""Bytes up to which a host copy is one piece."""

_engines = itertools.count()


class EngineMemory:
    """The weights and the cache of one engine, in vLLM's allocator.

    The cache is discarded at sleep. The weights have one copy on the host, made at the first sleep and kept, because
    parameters only change when they are reloaded (`forget_parameters`): waking copies it in, and later sleeps copy
    nothing out. If the parameters are discarded, because new ones are loaded before the next use, the host copy holds
    the rest: rotary tables, scales, whatever a layer keeps besides its parameters.
    """

    def __init__(self) -> None:
        from vllm.device_allocator.cumem import CuMemAllocator

        self._allocator = CuMemAllocator.get_instance()
        _let_sleeping_blocks_be_freed(self._allocator)
        self._name = f"engine {next(_engines)}"
        self._copies: dict[tuple[int, int], _HostCopy] = {}

    def pool(self, tag: str) -> AbstractContextManager[None]:
        """Allocate, in a context, from this engine's memory for weights or cache."""
        pool: AbstractContextManager[None] = self._allocator.use_memory_pool(self._tag(tag))
        return pool

    def sleep(self, parameters: Iterable[Tensor], *, discard: bool, changes: bool) -> None:
        """Release the device memory.

        Args:
            parameters: the model's.
            discard: keep no copy of them.
            changes: tensors that are not parameters change too, such as a LoRA engine's slots, and are copied out at
                every sleep.
        """
        from vllm.device_allocator.cumem import libcudart, unmap_and_release

        owned = _united(_storage(p) for p in parameters)
        if discard:
            self._forget(owned)
        awake = {address for address, _ in self._blocks(WEIGHTS, asleep=False)}
        for begin, end, segment in self._living():
            if segment not in awake:
                continue
            inside = [(max(a, begin), min(b, end)) for a, b in owned if a < end and b > begin]
            rest = list(_gaps(inside, begin, end))
            for span in rest + ([] if discard else inside):
                copy = self._copies.get(span)
                if copy is None:
                    copy = self._copies[span] = _HostCopy(*span)
                elif not (changes and span in rest):
                    continue
                copy.copy_out(libcudart)
        for tag in (WEIGHTS, CACHE):
            for _, data in self._blocks(tag, asleep=False):
                unmap_and_release(data.handle)
                data.is_asleep = True
        gc.collect()
        torch.accelerator.empty_cache()

    def wake(self, tag: str) -> None:
        """Map the blocks again and copy their contents back from the host.

        Raises:
            RuntimeError: the device is out of memory.
        """
        from vllm.device_allocator.cumem import create_and_map, libcudart

        gc.collect()
        torch.accelerator.empty_cache()  # torch's cached blocks are not free for others
        for address, data in self._blocks(tag, asleep=True):
            create_and_map(data.handle)
            data.is_asleep = False
            end = address + data.handle[1]
            if tag == CACHE:
                # Zeros, as when it was made: the memory may hold a NaN, and 0 times NaN is NaN.
                libcudart.cudaMemset(address, 0, data.handle[1])
            for (begin, _), copy in self._copies.items():
                if address <= begin < end:
                    copy.copy_in(libcudart)

    def forget_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Drop the host copy of parameters that have been overwritten."""
        self._forget(_united(_storage(p) for p in parameters))

    def _forget(self, spans: Sequence[tuple[int, int]]) -> None:
        self._copies = {
            (begin, end): copy
            for (begin, end), copy in self._copies.items()
            if not any(a <= begin and end <= b for a, b in spans)
        }

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Release this engine's pools after the worker, inside, has dropped its tensors.

        The worker itself would release the pools of all engines, before a garbage collection has freed the last
        tensors.
        """
        pools = self._allocator.allocator_and_pools
        tags = {self._tag(WEIGHTS), self._tag(CACHE)}
        self._allocator.allocator_and_pools = {}
        try:
            yield
            gc.collect()
            self._allocator.allocator_and_pools = {tag: pool for tag, pool in pools.items() if tag in tags}
            self._allocator.release_pools()
        finally:
            self._allocator.allocator_and_pools = {tag: pool for tag, pool in pools.items() if tag not in tags}
            self._copies.clear()

    def _tag(self, tag: str) -> str:
        return f"{tag} of {self._name}"

    def _blocks(self, tag: str, *, asleep: bool) -> list[tuple[int, Any]]:
        """Return the address and vLLM's record of each block."""
        blocks = self._allocator.pointer_to_data.items()
        return [(address, data) for address, data in blocks if data.tag == self._tag(tag) and data.is_asleep == asleep]

    def _living(self) -> Iterator[tuple[int, int, int]]:
        """Yield begin and end of each span of the weights' memory that holds tensors, and the address of its block."""
        for pool, _ in self._allocator.allocator_and_pools.get(self._tag(WEIGHTS), ()):
            for segment in pool.snapshot():
                address, spans = segment["address"], []
                for part in segment["blocks"]:
                    if part["state"].startswith("active"):
                        spans.append((address, address + part["size"]))
                    address += part["size"]
                for begin, end in _united(spans):
                    yield begin, end, segment["address"]


@dataclass
class _HostCopy:
    """A copy of a span of device memory in pinned pieces whose sizes are powers of two.

    torch rounds pinned memory up to a power of two, which could double the memory of whole layers.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        from vllm.utils.torch_utils import PIN_MEMORY

        sizes = _powers_of_two(self.end - self.begin)
        self._pieces = [torch.empty(size, dtype=torch.uint8, pin_memory=PIN_MEMORY) for size in sizes]

    def copy_out(self, cudart: Any) -> None:
        for address, piece in self._placed():
            cudart.cudaMemcpy(piece.data_ptr(), address, piece.numel())

    def copy_in(self, cudart: Any) -> None:
        for address, piece in self._placed():
            cudart.cudaMemcpy(address, piece.data_ptr(), piece.numel())

    def _placed(self) -> Iterator[tuple[int, Tensor]]:
        address = self.begin
        for piece in self._pieces:
            yield address, piece
            address += piece.numel()


def _powers_of_two(size: int) -> Iterator[int]:
    while size > _PIECE:
        yield (piece := 1 << (size.bit_length() - 1))
        size -= piece
    if size:
        yield size


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Return begin and end of a tensor's storage, rounded up to torch's unit of 512 bytes."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + -(-storage.nbytes() // 512) * 512


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort spans and join those that touch or overlap.

    >>> _united([(4, 6), (0, 2), (2, 3)])
    [(0, 3), (4, 6)]
    """
    united: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if united and begin <= united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((begin, end))
    return united


def _gaps(spans: Iterable[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Return the rest of a block without `spans`, which are in order.

    >>> list(_gaps([(2, 3), (5, 8)], 0, 8))
    [(0, 2), (3, 5)]
    """
    for a, b in spans:
        if begin < a:
            yield begin, a
        begin = max(begin, b)
    if begin < end:
        yield begin, end


def _let_sleeping_blocks_be_freed(allocator: Any) -> None:
    """Map a sleeping block once more just before it is freed.

    vLLM frees a block by unmapping it, on CUDA even a sleeping one, which is not mapped. The driver refuses that, and
    vLLM's extension then fails in its next call, perhaps for another engine.
    """
    from vllm.device_allocator.cumem import create_and_map

    if hasattr(allocator, "_refinerl_frees"):
        return
    free: Callable[[int], Any] = allocator.python_free_callback

    def freed(address: int) -> Any:
        data = allocator.pointer_to_data[address]
        if data.is_asleep:
            # If the device has no room for it, nothing helps against the driver's refusal.
            with contextlib.suppress(RuntimeError):
                create_and_map(data.handle)
            data.is_asleep = False
        return free(address)

    allocator._refinerl_frees = True
    allocator.python_free_callback = freed

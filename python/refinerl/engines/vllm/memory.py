"""The device memory of one engine among several of a process, and what of it survives sleep.

vLLM's allocator is one for the process: it holds one engine, and puts all that it holds to sleep at once. It knows its
blocks by a tag, so each engine here has tags of its own, and only its own blocks are unmapped and mapped again.
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
"""Bytes below which a host copy is not cut up."""

_engines = itertools.count()


class EngineMemory:
    """The weights and the cache of one engine, in vLLM's allocator.

    The cache is discarded at sleep. Of the weights there is one copy on the host, made at the first sleep and kept,
    since parameters only change by `forget_parameters`' caller: what wakes is copied in, and nothing is copied out
    again. Where the parameters are discarded, because others come before the next use, the host copy holds the rest:
    rotary tables, scales, whatever a layer keeps beside its parameters.
    """

    def __init__(self) -> None:
        from vllm.device_allocator.cumem import CuMemAllocator

        self._allocator = CuMemAllocator.get_instance()
        _let_sleeping_blocks_be_freed(self._allocator)
        self._name = f"engine {next(_engines)}"
        self._copies: dict[tuple[int, int], _HostCopy] = {}

    def pool(self, tag: str) -> AbstractContextManager[None]:
        """What is allocated inside belongs to this engine's weights or cache."""
        pool: AbstractContextManager[None] = self._allocator.use_memory_pool(self._tag(tag))
        return pool

    def sleep(self, parameters: Iterable[Tensor], *, discard: bool, changes: bool) -> None:
        """Give the device memory back.

        Args:
            parameters: of the model.
            discard: keep no copy of them.
            changes: what is not a parameter changes too, and is copied out at every sleep: a LoRA engine's slots.
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
        """Map the blocks again and bring back what was kept of them.

        Raises:
            RuntimeError: the device is out of memory.
        """
        from vllm.device_allocator.cumem import create_and_map, libcudart

        gc.collect()
        torch.accelerator.empty_cache()  # what torch merely keeps is not free for others
        for address, data in self._blocks(tag, asleep=True):
            create_and_map(data.handle)
            data.is_asleep = False
            end = address + data.handle[1]
            if tag == CACHE:
                # Zeros, as when it was made: a weight of 0 does not undo a NaN that the memory may hold.
                libcudart.cudaMemset(address, 0, data.handle[1])
            for (begin, _), copy in self._copies.items():
                if address <= begin < end:
                    copy.copy_in(libcudart)

    def forget_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Drop the host copy of parameters that others have overwritten."""
        self._forget(_united(_storage(p) for p in parameters))

    def _forget(self, spans: Sequence[tuple[int, int]]) -> None:
        self._copies = {
            (begin, end): copy
            for (begin, end), copy in self._copies.items()
            if not any(a <= begin and end <= b for a, b in spans)
        }

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Inside, vLLM's worker lets go of its tensors; afterwards the pools that held them are free.

        The worker would free the pools of all engines, and before the tensors that only a garbage collection frees.
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
        """Address and vLLM's record of each block."""
        blocks = self._allocator.pointer_to_data.items()
        return [(address, data) for address, data in blocks if data.tag == self._tag(tag) and data.is_asleep == asleep]

    def _living(self) -> Iterator[tuple[int, int, int]]:
        """Begin and end of what tensors take of the weights' memory, without gaps, and the block that it lies in."""
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
    """The bytes of a span of device memory in pinned pieces.

    torch rounds pinned memory up to a power of two, which for whole layers could double it; such pieces stay as they
    are.
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
    """Where it lies, in torch's steps of 512 bytes."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + -(-storage.nbytes() // 512) * 512


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ground in order and without neighbours that touch."""
    united: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if united and begin <= united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((begin, end))
    return united


def _gaps(spans: Iterable[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What is left of a block without `spans`, which are in order."""
    for a, b in spans:
        if begin < a:
            yield begin, a
        begin = max(begin, b)
    if begin < end:
        yield begin, end


def _let_sleeping_blocks_be_freed(allocator: Any) -> None:
    """vLLM frees a block by unmapping it, on CUDA also one that sleeps and is not mapped.

    The driver refuses that, and vLLM's extension fails the next call for it, another engine's perhaps. So a sleeping
    block is mapped once more just before it is freed.
    """
    from vllm.device_allocator.cumem import create_and_map

    if hasattr(allocator, "_refinerl_frees"):
        return
    free: Callable[[int], Any] = allocator.python_free_callback

    def freed(address: int) -> Any:
        data = allocator.pointer_to_data[address]
        if data.is_asleep:
            # Where the device has no room left for it, the driver's refusal is all that remains.
            with contextlib.suppress(RuntimeError):
                create_and_map(data.handle)
            data.is_asleep = False
        return free(address)

    allocator._refinerl_frees = True
    allocator.python_free_callback = freed

"""A card's memory for vLLM's allocator, kept on the host, that writes down what is mapped, unmapped and copied.

It stands in for two things only: vLLM's C extension with the driver and the runtime library behind it, and torch's
pools of device memory. It does what `csrc/cumem_allocator.cpp` of vLLM 0.32 does: a block that is not mapped cannot be
unmapped, and such a fault fails the next call. Memory that was unmapped is full of NaN when it is mapped again.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SMALL, GRANULE = 2**20, 2**21
"""torch's allocator packs what is smaller than the first into segments of the second, the driver's granule."""


@dataclass
class Segment:
    """A range of addresses, and whether there is memory behind it."""

    size: int
    tag: str
    memory: Any
    mapped: bool = True
    parts: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """What was handed out, by its offset: bytes, and whether the tensor lives."""

    def __post_init__(self) -> None:
        self.address = ctypes.addressof(self.memory)

    @property
    def used(self) -> int:
        return sum(size for size, _ in self.parts.values())

    @property
    def alive(self) -> int:
        return sum(size for size, alive in self.parts.values() if alive)

    def poison(self) -> None:
        ctypes.memset(self.address, 0xFF, self.size)


@dataclass(frozen=True)
class Event:
    """`map`, `unmap`, `to host`, `to card` or `load` (by torch, from outside), with bytes and the block's tag."""

    kind: str
    tag: str
    size: int


@dataclass
class Card:
    """The memory, what happened to it, and the faults: what a driver refuses, or would crash on."""

    segments: dict[int, Segment] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    retired: bool = False
    """The test is over."""
    _sticky: str = ""
    _callbacks: tuple[Callable[[Any], None], Callable[[int], Any]] | None = None

    def moved(self, since: int = 0) -> Counter[tuple[str, str]]:
        """Bytes by kind of event and tag."""
        total: Counter[tuple[str, str]] = Counter()
        for event in self.events[since:]:
            total[event.kind, event.tag] += event.size
        return total

    def mapped(self, tag: str = "") -> int:
        """Bytes of card memory in use."""
        return sum(s.size for s in self.segments.values() if s.mapped and s.tag.startswith(tag))

    def holds(self, tensor: Tensor) -> bool:
        return self._segment(tensor.untyped_storage().data_ptr()) is not None

    def _segment(self, address: int) -> Segment | None:
        return next((s for s in self.segments.values() if s.address <= address < s.address + s.size), None)

    # --- vllm.cumem_allocator ---------------------------------------------------------------------------

    def init_module(self, malloc: Callable[[Any], None], free: Callable[[int], Any]) -> None:
        self._callbacks = malloc, free

    def python_create_and_map(self, device: int, size: int, address: int, handle: int) -> None:
        if not self._sticky:
            segment = self.segments[address]
            if segment.mapped:
                self._fault("mapped twice", segment.tag)
            segment.mapped = True
            segment.poison()
            self.events.append(Event("map", segment.tag, size))
        self._raise()

    def python_unmap_and_release(self, device: int, size: int, address: int, handle: int) -> None:
        self._unmap(self.segments[address])
        self._raise()

    def _unmap(self, segment: Segment) -> None:
        if not segment.mapped:
            return self._fault("unmapped twice", segment.tag)
        if self._sticky:
            return None
        segment.mapped = False
        segment.poison()
        self.events.append(Event("unmap", segment.tag, segment.size))
        return None

    def _fault(self, fault: str, tag: str) -> None:
        self.faults.append(f"{fault}: {tag}")
        self._sticky = "CUDA Error: invalid argument"

    def _raise(self) -> None:
        message, self._sticky = self._sticky, ""
        if message:
            raise RuntimeError(message)

    def malloc(self, size: int, tag: Callable[[], str]) -> Segment:
        assert self._callbacks is not None
        memory = (ctypes.c_char * size)()
        segment = Segment(size, tag(), memory)
        segment.poison()
        self.segments[segment.address] = segment
        self._callbacks[0]((0, size, segment.address, segment.address))
        self.events.append(Event("map", segment.tag, size))
        return segment

    def free(self, segment: Segment) -> None:
        assert self._callbacks is not None
        self._callbacks[1](segment.address)
        self._unmap(segment)
        del self.segments[segment.address]

    # --- libcudart --------------------------------------------------------------------------------------

    def cudaMemcpy(self, to: int, source: int, size: int) -> None:  # noqa: N802
        for kind, address in (("to card", to), ("to host", source)):
            segment = self._segment(address)
            if segment is not None:
                if not segment.mapped:
                    self.faults.append(f"copied {kind} while unmapped: {segment.tag}")
                self.events.append(Event(kind, segment.tag, size))
        ctypes.memmove(to, source, size)

    def cudaMemset(self, to: int, value: int, size: int) -> None:  # noqa: N802
        segment = self._segment(to)
        assert segment is not None
        if not segment.mapped:
            self.faults.append(f"set while unmapped: {segment.tag}")
        ctypes.memset(to, value, size)

    # --- torch's copies into it --------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching_loads(self) -> Iterator[None]:
        """Inside, torch's own copies from outside into the card are events too."""
        card = self

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.ops.aten.copy_.default and not args[0].is_meta:
                    segment = card._segment(args[0].untyped_storage().data_ptr())
                    if segment is not None and not card.holds(args[1]):
                        card.events.append(Event("load", segment.tag, args[0].nbytes))
                return func(*args, **(kwargs or {}))

        with Watch():
            yield


class PluggableAllocator:
    """torch.cuda.memory.CUDAPluggableAllocator: a pool whose allocator is gone crashes when it frees."""

    def __init__(self, library: str, malloc: str, free: str) -> None:
        self._allocator = self


class Pool:
    """torch.cuda.MemPool with one segment for each big tensor, and small ones packed."""

    card: Card
    tag: Callable[[], str]

    def __init__(self, allocator: PluggableAllocator) -> None:
        self._state = _PoolState(self.card, weakref.ref(allocator))
        self.id = (0, id(self))
        weakref.finalize(self, self._state.end)

    def snapshot(self) -> list[dict[str, Any]]:
        return [
            {
                "address": s.address,
                "allocated_size": s.alive,
                "blocks": [
                    {"size": size, "state": "active_allocated" if alive else "inactive"}
                    for size, alive in s.parts.values()
                ],
            }
            for s in self._state.segments.values()
        ]


@dataclass
class _PoolState:
    card: Card
    allocator: Any
    segments: dict[int, Segment] = field(default_factory=dict)
    ended: bool = False

    def tensor(self, like: Tensor, tag: Callable[[], str]) -> Tensor:
        """A copy in the pool's memory."""
        size = max(512, -(-like.untyped_storage().nbytes() // 512) * 512)
        room = (s for s in self.segments.values() if s.mapped and size <= SMALL and s.used + size <= s.size == GRANULE)
        segment = next(room, None)
        if segment is None:
            segment = self.card.malloc(-(-size // GRANULE) * GRANULE, tag)
            self.segments[segment.address] = segment
        offset = segment.used
        segment.parts[offset] = size, True
        owner = (ctypes.c_char * size).from_address(segment.address + offset)
        owner._keeps = segment.memory
        weakref.finalize(owner, self.let_go, segment, offset)
        flat = torch.frombuffer(owner, dtype=torch.uint8)
        moved = torch.empty(0, dtype=like.dtype).set_(
            flat.untyped_storage(), like.storage_offset(), like.size(), like.stride()
        )
        return moved.copy_(like)

    def let_go(self, segment: Segment, offset: int) -> None:
        segment.parts[offset] = segment.parts[offset][0], False
        if self.ended and not segment.alive:
            self._free(segment)

    def end(self) -> None:
        self.ended = True
        for segment in list(self.segments.values()):
            if not segment.alive:
                self._free(segment)

    def _free(self, segment: Segment) -> None:
        known = self.segments.pop(segment.address, None) is not None and segment.address in self.card.segments
        if not known or self.card.retired:
            return
        if self.allocator() is None:
            self.card.faults.append(f"freed by an allocator that is gone: {segment.tag}")
        self.card.free(segment)


@contextlib.contextmanager
def use_pool(pool: Pool) -> Iterator[None]:
    """torch.cuda.memory.use_mem_pool: what is made inside lies in the pool."""

    class InPool(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            given = {
                t.untyped_storage()._cdata
                for t in tree_leaves((args, kwargs))
                if isinstance(t, Tensor) and not t.is_meta
            }

            def moved(value: Any) -> Any:
                fresh = isinstance(value, Tensor) and value.device.type == "cpu" and value.untyped_storage().nbytes()
                if not fresh or value.untyped_storage()._cdata in given or pool.card.holds(value):
                    return value
                return pool._state.tensor(value, pool.tag)

            return tree_map(moved, out)

    with InPool():
        yield


@contextlib.contextmanager
def put_in() -> Iterator[Card]:
    """A fresh card behind vLLM's allocator."""
    from vllm.device_allocator import cumem

    card = Card()

    def tag() -> str:
        return cumem.CuMemAllocator.get_instance().current_tag

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cumem, "init_module", card.init_module)
        patch.setattr(cumem, "python_create_and_map", card.python_create_and_map)
        patch.setattr(cumem, "python_unmap_and_release", card.python_unmap_and_release)
        patch.setattr(cumem, "libcudart", card, raising=False)
        patch.setattr(cumem, "cumem_available", True)
        patch.setattr(cumem.CuMemAllocator, "instance", None)
        patch.setattr(torch.cuda.memory, "CUDAPluggableAllocator", PluggableAllocator)
        patch.setattr(torch.cuda.memory, "MemPool", type("MemPool", (Pool,), {"card": card, "tag": staticmethod(tag)}))
        patch.setattr(torch.cuda.memory, "use_mem_pool", use_pool)
        patch.setattr(torch.cuda, "synchronize", lambda *_: None)
        yield card
        card.retired = True

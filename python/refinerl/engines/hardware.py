"""The devices of this machine, as PyTorch sees them.

All that is CUDA's alone (driver, capability, free memory) is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch


@dataclass(frozen=True)
class Card:
    """A device's properties."""

    name: str = ""
    capability: str = ""
    """CUDA's compute capability, such as 8.6; empty for other types."""
    bfloat16: bool = True
    """True if it computes in bfloat16."""
    uuid: str = ""
    """Identical in every process that sees this device; empty for types that have none."""


class Hardware:
    """The devices that this process sees. Tests replace `devices.hardware` by a subclass."""

    def fault(self, kind: str) -> str | None:
        """Return PyTorch's reason why no device of this type can be used, or None if one can. Creates no context."""
        module = _module(kind)
        if module is None:
            return "this PyTorch has none of that type"
        if kind == "cuda":
            if torch.version.cuda is None and torch.version.hip is None:
                return "this PyTorch is built without CUDA"
            try:
                torch.cuda.init()  # type: ignore[no-untyped-call]
            except (RuntimeError, AssertionError) as error:
                return str(error).splitlines()[0] if str(error) else type(error).__name__
            return None
        return None if module.is_available() else "there is none here"

    def count(self, kind: str) -> int:
        """Count the devices of this type that the process sees."""
        return int(_required(kind).device_count())

    def current(self, kind: str) -> int:
        """Return the index of the current device, which a tensor goes to without an index."""
        return int(_required(kind).current_device())

    def use(self, device: torch.device) -> None:
        """Make a device the current one."""
        _required(device.type).set_device(device.index)

    def settle(self, device: torch.device) -> None:
        """Wait until a device has finished its work."""
        _required(device.type).synchronize(device)

    def card(self, device: torch.device) -> Card:
        """Read a device's properties. Creates no context."""
        if device.type != "cuda":
            return Card(name=device.type)
        found: Any = torch.cuda.get_device_properties(device)
        return Card(
            name=found.name,
            capability=f"{found.major}.{found.minor}",
            bfloat16=torch.version.hip is not None or found.major >= 8,
            uuid=str(getattr(found, "uuid", "")),
        )

    def memory(self, device: torch.device) -> tuple[int, int] | None:
        """Read the free and the total bytes, over all processes; None for types that do not report them."""
        read = getattr(_required(device.type), "mem_get_info", None)
        return None if read is None else tuple(read(device))

    def peak(self, device: torch.device) -> int | None:
        """Read the most bytes that tensors of this process have taken so far; None for types that do not count them."""
        read = getattr(_required(device.type), "max_memory_allocated", None)
        return None if read is None else int(read(device))

    def kernels(self, device: torch.device) -> str:
        """Return the reason why our CUDA kernels do not run on a device, such as an old driver; empty if they run."""
        from refinerl.kernels import cuda

        return cuda.why_not(device.index or 0)


def _module(kind: str) -> ModuleType | None:
    module = getattr(torch, kind, None)
    return module if isinstance(module, ModuleType) or hasattr(module, "device_count") else None


def _required(kind: str) -> Any:
    module = _module(kind)
    assert module is not None, kind
    return module

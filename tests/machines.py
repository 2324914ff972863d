"""Machines that are not this one: what `Hardware` would read on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from refinerl.engines import devices
from refinerl.engines.devices import GIB
from refinerl.engines.hardware import Card, Hardware

H100 = Card("NVIDIA H100 80GB HBM3", "9.0", uuid="e3b1")
T4 = Card("Tesla T4", "7.5", bfloat16=False, uuid="77aa")

NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
    "http://www.nvidia.com/Download/index.aspx"
)
OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
OLD_FOR_KERNELS = "the driver supports CUDA 11.8 and the kernels need 12.0: install driver 525 or newer"
"""What refinerl._core says."""


@dataclass
class Machine(Hardware):
    """A machine with these CUDA devices, or with what PyTorch says where it cannot use them."""

    cards: list[Card] = field(default_factory=list)
    says: str | None = None
    free: float = 79.0
    total: float = 79.1
    """GiB of each card."""
    without_kernels: str = ""
    refuses: str = ""
    """What CUDA says when a device is to become the current one; empty where it does."""
    used: list[str] = field(default_factory=list)
    """Devices that were made the current one."""

    def fault(self, kind: str) -> str | None:
        return self.says or (None if self.cards else NO_DRIVER) if kind == "cuda" else super().fault(kind)

    def count(self, kind: str) -> int:
        return len(self.cards)

    def current(self, kind: str) -> int:
        return int(self.used[-1].removeprefix("cuda:")) if self.used else 0

    def use(self, device: torch.device) -> None:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.used.append(str(device))

    def card(self, device: torch.device) -> Card:
        return self.cards[device.index]

    def settle(self, device: torch.device) -> None:
        """Nothing is under way."""

    def memory(self, device: torch.device) -> tuple[int, int]:
        return int(self.free * GIB), int(self.total * GIB)

    def kernels(self, device: torch.device) -> str:
        return self.without_kernels


def stand_in(monkeypatch: pytest.MonkeyPatch, *cards: Card, **facts: object) -> Machine:
    """Puts a machine in the place of this one; what a process claims there is forgotten at the test's end."""
    machine = Machine(list(cards), **facts)  # type: ignore[arg-type]
    monkeypatch.setattr(devices, "hardware", machine)
    monkeypatch.setattr(devices, "_claimed", None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    return machine


def write_config(folder: Path, width: int, layers: int) -> Path:
    """A model's config.json without its weights: to count them it is enough."""
    folder.mkdir()
    (folder / "config.json").write_text(
        f'{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {width}, "intermediate_size": '
        f'{4 * width}, "num_hidden_layers": {layers}, "num_attention_heads": 8, "vocab_size": 32000}}'
    )
    return folder

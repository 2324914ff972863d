"""The device that a process uses: chosen and checked before anything is loaded.

Any device type that PyTorch knows is accepted. Messages name a setting that works.
"""

from __future__ import annotations

import os
import resource
import sys

import torch

from refinerl.engines.hardware import Hardware
from refinerl.engines.launched import Launched
from refinerl.errors import UserError

GIB = 2**30

hardware = Hardware()
"""Replaced by tests."""

_ABSENT = ("found no nvidia driver", "no cuda gpus are available", "no cuda-capable device", "built without cuda")
"""PyTorch's messages where there is no GPU; any other means a GPU that does not work."""

_claimed: torch.device | None = None


def resolve(name: str, knob: str = "device") -> torch.device:
    """Return the device that a knob's value means: `auto` is the GPU if there is one, `cuda` the current GPU.

    Raises:
        UserError: the value names no device, or one that is absent or unusable; the message names a value that works.
    """
    if name == "auto":
        fault = hardware.fault("cuda")
        if fault is None:
            return torch.device("cuda", hardware.current("cuda"))
        if any(said in fault.lower() for said in _ABSENT):
            return torch.device("cpu")
        raise UserError(_broken(f"{knob}=auto", knob, fault))
    device = _parse(name, knob)
    if device.type == "cpu":
        return torch.device("cpu")
    if (fault := hardware.fault(device.type)) is not None:
        raise UserError(_broken(f"{knob}={name}", knob, fault))
    count, index = hardware.count(device.type), _index(device)
    if index is None:
        return torch.device(device.type, hardware.current(device.type))
    if index >= count:
        there = f"{device.type}:0" if count == 1 else f"{device.type}:0 to {device.type}:{count - 1}"
        raise UserError(
            f"{knob}={name} is not there, this process sees {there}: choose {knob}={device.type}:{count - 1}, or let "
            "it see more (CUDA_VISIBLE_DEVICES)"
        )
    return device


def require_name(name: str, knob: str = "device") -> None:
    """Check that a knob's value names a device, on this machine or another.

    Raises:
        UserError: it does not.
    """
    if name != "auto":
        _parse(name, knob)


def claim(name: str, launched: Launched | None = None, knob: str = "device") -> torch.device:
    """Choose this process's device and make it the current one; each rank of a machine gets a device of its own.

    Raises:
        UserError: as in `resolve`, or several ranks would share a device.
    """
    global _claimed
    device = resolve(name, knob)
    if device.type != "cpu":
        if launched is not None and launched.size > 1:
            device = _share(name, device, launched, knob)
        try:
            hardware.use(device)
        except RuntimeError as error:  # as where another process has it for itself, or all of its memory
            raise UserError(
                f"{device} cannot be used ({str(error).splitlines()[0]}): end the process that holds it (nvidia-smi "
                f"lists those), choose another GPU (CUDA_VISIBLE_DEVICES=N), or set {knob}=cpu"
            ) from error
        os.environ["LOCAL_RANK"] = str(device.index)  # the device that DeepSpeed and vLLM take
    _claimed = device
    return device


def describe(device: torch.device) -> str:
    """Return the device with its name, such as `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    return "cpu" if device.type == "cpu" else f"{device} ({hardware.card(device).name})"


def peak_memory(device: torch.device) -> dict[str, float]:
    """Measure the most memory that this process has used so far, in GiB, as metrics: of the host and of the device."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"memory/host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
    if device.type != "cpu" and (peak := hardware.peak(device)) is not None:
        found["memory/device_peak"] = peak / GIB
    return found


def settle(device: torch.device) -> None:
    """Wait until the device has finished its work. On a CPU there is nothing to wait for."""
    if device.type != "cpu":
        hardware.settle(device)


def accelerator() -> str:
    """Return the device type for DeepSpeed: the claimed device's, or before any claim CUDA if there is a GPU."""
    if _claimed is not None:
        return "cuda" if _claimed.type == "cuda" else "cpu"
    return os.environ.get("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")


def identity(device: torch.device) -> str:
    """Return a name that two processes share only if they use the same device; empty where devices have none."""
    return "" if device.type == "cpu" else hardware.card(device).uuid


def require_bfloat16(device: torch.device, setting: str, instead: str) -> None:
    """Check that a device computes in bfloat16.

    Raises:
        UserError: it does not. `setting` is the one that asks for bfloat16, `instead` one that works.
    """
    card = hardware.card(device)
    if not card.bfloat16:
        raise UserError(
            f"{setting} needs a GPU of compute capability 8.0 or newer, and {device} ({card.name}) has "
            f"{card.capability}: set {instead}"
        )


def require_kernels(device: torch.device) -> None:
    """Check that `kernels.impl=cuda` can run on a device.

    Raises:
        UserError: it cannot.
    """
    if device.type != "cuda":
        raise UserError(f"kernels.impl=cuda runs on CUDA devices, and device={device}: set kernels.impl=auto")
    if reason := hardware.kernels(device):
        raise UserError(
            f"kernels.impl=cuda cannot run on {device} ({reason}): set kernels.impl=auto, which computes the same with "
            "PyTorch"
        )


def require_memory(device: torch.device, needed: int, what: str, turn: str) -> None:
    """Check that a device has `needed` bytes free for `what`.

    Raises:
        UserError: it is too small, or other processes hold too much of it. `turn` says what lowers the need.
    """
    if device.type == "cpu" or (found := hardware.memory(device)) is None:
        return
    free, total = found
    if needed <= free:
        return
    name = describe(device)
    if needed > total:
        raise UserError(f"{name} has {total / GIB:.1f} GiB, and {what} need {needed / GIB:.1f} GiB: {turn}")
    raise UserError(
        f"{name} has {free / GIB:.1f} of {total / GIB:.1f} GiB free, and {what} need {needed / GIB:.1f} GiB: end the "
        f"other processes that hold the rest (nvidia-smi lists them), choose another GPU (CUDA_VISIBLE_DEVICES=N), or "
        f"{turn}"
    )


def _parse(name: str, knob: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":  # it holds no data
        raise UserError(f"{knob} must be auto, cpu, cuda or cuda:N with N from 0, got {name!r}")
    return device


def _share(name: str, device: torch.device, launched: Launched, knob: str) -> torch.device:
    if name not in ("auto", device.type):
        raise UserError(
            f"{knob}={name} puts all {launched.size} ranks on one device: set {knob}={device.type}, which gives each "
            "rank of a machine its own (CUDA_VISIBLE_DEVICES chooses among them)"
        )
    count = hardware.count(device.type)
    if launched.local_rank < count:
        return torch.device(device.type, launched.local_rank)
    if count == 1:  # Slurm shows each task its own
        return torch.device(device.type, 0)
    raise UserError(
        f"this machine has {launched.local_size} ranks and {count} devices of type {device.type}: start {count} ranks "
        f"on it (--nproc-per-node {count}, --num_accelerators {count}, --ntasks-per-node={count})"
    )


def _broken(asked: str, knob: str, fault: str) -> str:
    said, reason = fault.lower(), fault.partition(". ")[0].rstrip(".")
    if any(word in said for word in _ABSENT):
        return f"{asked} needs a GPU, and PyTorch finds none here ({reason}): set {knob}=cpu"
    if "driver" in said and "too old" in said:
        built = torch.version.cuda or "none"
        return (
            f"{asked} needs a newer NVIDIA driver than this machine's ({reason}; this PyTorch is built for CUDA "
            f"{built}): update the driver, install a PyTorch built for an older CUDA, or set {knob}=cpu"
        )
    return f"{asked} cannot be used ({reason}): set {knob}=cpu"


def _index(device: torch.device) -> int | None:
    return device.index  # PyTorch's stubs know of no None

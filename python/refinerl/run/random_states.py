"""The states of all global random generators, saved in checkpoints and restored after a run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def current(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the states of all global random generators: Python's, NumPy's, PyTorch's, the device's.

    Other devices are not included, because reading their states would take memory on each.
    """
    device = torch.device(device)
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the user's code may use it
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device),
    }


def restore(states: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Restore the random generators to `states`."""
    device = torch.device(device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    own = states.get("device")
    if device.type == "cuda" and states.get("cuda"):  # older checkpoints hold the states of all visible GPUs
        index = device.index or 0
        own = states["cuda"][index] if index < len(states["cuda"]) else None
    if own is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(own, device)

"""Global state of the process that a run changes and restores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from refinerl.run import random_states

NAMES = ("LOCAL_RANK", "DS_ACCELERATOR", "PYTORCH_NVML_BASED_CUDA_CHECK")
"""Variables that engines set for DeepSpeed, and one that its import sets. Left set, another trainer would take itself
for one of several ranks."""


@contextmanager
def as_found(model: PreTrainedModel | None = None) -> Iterator[None]:
    """Restore the random generators, PyTorch's threads and precision, the current GPU and launchers' variables.

    Of a model, restore mode, device and `requires_grad`.
    """
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    owner = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
    states, threads = random_states.current(owner), torch.get_num_threads()
    environment = {name: os.environ.get(name) for name in NAMES}
    precision = torch.get_float32_matmul_precision()
    modes = [] if model is None else [(module, module.training) for module in model.modules()]
    learns = [] if model is None else [(p, p.requires_grad) for p in model.parameters()]
    device = None if model is None else model.device
    default = torch.get_default_device()
    torch.set_default_device(None)  # data and random numbers belong to the CPU
    try:
        yield
    finally:
        torch.set_default_device(None if default == torch.device("cpu") else default)
        if gpu is not None:
            torch.cuda.set_device(gpu)
        random_states.restore(states, owner)
        torch.set_float32_matmul_precision(precision)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for module, training in modes:
            module.training = training
        for p, learnt in learns:
            if not p.is_inference():  # those refuse it
                p.requires_grad_(learnt)
        if model is not None and model.device != device:
            model.to(device)

"""The number of threads for passes over a few tokens of a small model.

Two threads share a product of matrices only if each gets more of it than what it costs to wait for the other. In a
small model all products are smaller than that, and one thread is faster. The rule goes by counts, never by a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

ENOUGH = 2**20
"""Multiplications of a product that are enough for a second thread: some tens of microseconds (`bench_cores.py`)."""
READING = 16
"""Tokens whose products take as long as reading the weights, which two threads do faster, too."""


@contextmanager
def few_threads(model: nn.Module, tokens: int) -> Iterator[None]:
    """Let PyTorch use one thread if the products of a model are small, and as many as before on leaving.

    Args:
        model: its passes on another device than the CPU are left alone.
        tokens: that a pass goes over.
    """
    before = torch.get_num_threads()
    if before == 1 or not _small(model, tokens):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _small(model: nn.Module, tokens: int) -> bool:
    """Tell whether all products of a pass are too small for two threads."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    if not weights or any(weight.device.type != "cpu" for weight in weights):
        return False
    largest = max(weight.numel() for weight in weights)
    return largest * max(tokens, READING) <= ENOUGH

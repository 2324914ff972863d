"""A library that takes the process for its own: what it changes is put back, what it shows is shown as ours."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Every random generator, torch's threads and its precision of float32 products are as before afterwards.

    Of the GPUs only the current one is looked at: to ask the others would open a context on each.
    """
    set_num_threads, python, numpy = torch.set_num_threads, random.getstate(), np.random.get_state()  # noqa: NPY002
    count, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(count)
            torch.set_float32_matmul_precision(precision)
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch computes with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def silent_bar(progress: Callable[[int], None], tokens: int) -> Callable[..., Any]:
    """A maker of tqdm bars that show nothing and tell `progress` of `tokens` for each item that is done."""

    class Bar(tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            progress(int(n or 0) * tokens)
            return super().update(n)

    def make(*items: Any, **options: Any) -> Any:
        """Over items as they are queued, no bar; without arguments, one that counts those that are done."""
        return items[0] if items else Bar(**{**options, "file": io.StringIO()})

    return make

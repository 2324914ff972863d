"""Guards against a library that behaves as if the process were its own: state is restored, progress bars are ours."""

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
    """Restore the random generators, torch's thread count and its precision of float32 products on leaving.

    Of the GPUs only the current one's generator is restored: asking the others would open a context on each.
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
    """Let torch compute with `count` threads in a context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def silent_bar(progress: Callable[[int], None], tokens: int) -> Callable[..., Any]:
    """Make a factory of tqdm bars that show nothing and report `tokens` to `progress` for each finished item."""

    class Bar(tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            progress(int(n or 0) * tokens)
            return super().update(n)

    def make(*items: Any, **options: Any) -> Any:
        """Return items that are being queued as they are; without arguments, a bar that counts finished requests."""
        return items[0] if items else Bar(**{**options, "file": io.StringIO()})

    return make

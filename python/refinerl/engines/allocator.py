"""The C library's allocator, told to keep memory that every step of a run on a CPU frees and takes again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep large blocks that it frees, for its next tensors; return True if that is possible.

    glibc returns every large block to the system as soon as it is freed, and the system hands out zeroed pages when
    the next tensor touches them: about a tenth of the time of a training step on a CPU. The price is that memory, once
    used, stays with the process. It applies to the whole process, so only commands call it. Without glibc it does
    nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings.items())

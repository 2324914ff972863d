"""Whether these tests may touch a GPU: those that `-m gpu` selects may, and no others.

The tests compare numbers to the last bits and start several ranks at a time, so on a machine with a GPU they run on its
CPU. It is hidden from their processes before one of them asks for it.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping

ABSENT = "needs a CUDA device, and `pytest -m gpu`"


def only_gpu(expression: str) -> bool:
    """Whether a marker expression selects only tests that are marked `gpu`, as `gpu and not slow` does."""
    words = re.findall(r"\w+", expression)
    return "gpu" in words and "or" not in words and "not gpu" not in " ".join(words)


def hide(environment: MutableMapping[str, str]) -> None:
    """No CUDA device for this process, if it has not asked yet, nor for those that it starts."""
    environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}

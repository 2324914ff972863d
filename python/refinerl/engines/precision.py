"""The precision of float32 products on a GPU."""

from __future__ import annotations

import torch


def multiply_float32(device: str, *, tf32: bool) -> None:
    """Let a GPU multiply float32 matrices in TF32, whose mantissa has 10 bits instead of 23, or forbid it.

    It applies to the whole process: trunk, heads and the logits of the cross-entropy. Sums stay in float32; other types
    and devices are not affected. A vLLM engine sets the same switch when it is made, so call this afterwards.
    """
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")

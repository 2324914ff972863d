"""The precision of float32 products on a GPU."""

from __future__ import annotations

import torch


def multiply_float32(device: str, *, tf32: bool) -> None:
    """Let a GPU multiply float32 matrices in TF32, with 10 bits behind the point instead of 23, or forbid it.

    For the whole process: trunk, heads and the cross-entropy's logits. Sums stay in float32, and other types and other
    devices as they are. An engine of vLLM sets the same switch when it is made, so this is called afterwards.
    """
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")

"""The epilogue on the CPU: rows in SIMD, on as many threads as PyTorch has; PyTorch's own are idle meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor

from refinerl import _core
from refinerl.kernels import Availability

LEVELS = tuple(_core.cross_entropy_levels())
"""The levels of SIMD that this processor has, among "portable", "avx2" and "avx512"; the best one is last."""


def availability() -> Availability:
    """Return that the kernels are available, as on any processor, with its SIMD levels."""
    return Availability(True, architectures=LEVELS)


class Epilogue:
    """The contract of `chunked.Epilogue`. The Rust core reads and writes the tensors' own memory."""

    def __init__(self, level: str = LEVELS[-1]) -> None:
        self._level = level

    def statistics(self, logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Compute nll and entropy."""
        nll, entropy = _core.cross_entropy_statistics(
            logits.numpy(), targets.numpy(), scale=scale, threads=torch.get_num_threads(), level=self._level
        )
        return torch.from_numpy(nll), torch.from_numpy(entropy)

    def fused(
        self, logits: Tensor, targets: Tensor, grad_nll: Tensor, grad_entropy: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Compute nll and entropy; overwrite the logits."""
        nll, entropy = _core.cross_entropy_fused(
            logits.numpy(),
            targets.numpy(),
            grad_nll=grad_nll.numpy(),
            grad_entropy=None if grad_entropy is None else grad_entropy.numpy(),
            scale=scale,
            threads=torch.get_num_threads(),
            level=self._level,
        )
        return torch.from_numpy(nll), torch.from_numpy(entropy)

    def kept(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Find the indices of the rows that count, and their number."""
        indices = counts.nonzero().squeeze(-1)
        return indices, torch.tensor(len(indices), device=counts.device)

"""The epilogue on the CPU: rows in SIMD, on as many threads as PyTorch has, while its own are idle."""

from __future__ import annotations

import torch
from torch import Tensor

from refinerl import _core


class Epilogue:
    """See `chunked.Epilogue`. Tensors are lent to the Rust core as they lie in memory."""

    def statistics(self, logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Nll, entropy and logsumexp."""
        nll, entropy, logsumexp = _core.cross_entropy_statistics(
            logits.numpy(), targets.numpy(), scale, torch.get_num_threads()
        )
        return torch.from_numpy(nll), torch.from_numpy(entropy), torch.from_numpy(logsumexp)

    def gradient(
        self,
        logits: Tensor,
        targets: Tensor,
        logsumexp: Tensor,
        entropy: Tensor,
        grad_nll: Tensor,
        grad_entropy: Tensor | None,
        scale: float,
    ) -> None:
        """Overwrites logits."""
        _core.cross_entropy_gradient(
            logits.numpy(),
            targets.numpy(),
            logsumexp.numpy(),
            entropy.numpy(),
            grad_nll.numpy(),
            None if grad_entropy is None else grad_entropy.numpy(),
            scale,
            torch.get_num_threads(),
        )

    def fused(self, logits: Tensor, targets: Tensor, weights: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Nll and entropy; overwrites logits."""
        nll, entropy = _core.cross_entropy_fused(
            logits.numpy(), targets.numpy(), weights.numpy(), scale, torch.get_num_threads()
        )
        return torch.from_numpy(nll), torch.from_numpy(entropy)

"""Float32 weights and gradients for a network in 16 bits, where small optimizer steps would be lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn


class Masters:
    """The parameters that the optimizer updates: a float32 copy of each trained 16-bit parameter, others as they are.

    bfloat16 has 8 significant bits: a step below 1/512 of a weight rounds to nothing, which at a learning rate of 1e-6
    is nearly every step. Sums of gradients over many micro-batches lose small terms in the same way, so they are
    float32 too: a parameter's gradient is added to its master's as soon as autograd has computed it, and freed.

    Args:
        parameters: the trained ones, each once.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._of: dict[nn.Parameter, nn.Parameter] = {}
        for p in parameters:
            self._of[p] = p if p.dtype.itemsize >= 4 else nn.Parameter(p.detach().float())
            if self._of[p] is not p:
                # The hook refers to the master alone: one that refers to its own parameter would keep both alive.
                p.register_post_accumulate_grad_hook(partial(_take, self._of[p]))  # type: ignore[no-untyped-call]
        self._rounded = [(p, master) for p, master in self._of.items() if p is not master]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters for the optimizer, with the accumulated gradients."""
        return list(self._of.values())

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return a parameter's master, or the parameter itself if it has none."""
        return self._of.get(parameter, parameter)

    @torch.no_grad()
    def write(self) -> None:
        """Copy the masters into the network, rounded to nearest."""
        if self._rounded:
            parameters, masters = zip(*self._rounded, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))

    @torch.no_grad()
    def read(self, named: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
        """Set the masters, in place, to the weights of the same names, which may be in 16 bits."""
        for name, p in named.items():
            if name in weights and self.of(p) is not p:
                self.of(p).copy_(weights[name])


def _take(master: nn.Parameter, parameter: Tensor) -> None:
    """Add a parameter's new gradient to its master's."""
    gradient, parameter.grad = parameter.grad, None
    if gradient is None:
        return
    if master.grad is None:
        master.grad = gradient.to(master.dtype)
    else:
        master.grad.add_(gradient)

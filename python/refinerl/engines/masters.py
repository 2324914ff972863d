"""Float32 weights and gradients behind a network of 16 bits, in which the steps of training would be lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn


class Masters:
    """What the optimizer moves: a float32 copy of each 16-bit parameter that learns, else the parameter itself.

    bfloat16 has 8 significant bits: a step below 1/512 of a weight rounds to nothing, which at a learning rate of 1e-6
    is nearly every step. Gradients have the same trouble over many micro-batches, so they are added up in float32: a
    parameter's own is moved to its master as soon as autograd has it, and freed.

    Args:
        parameters: those that learn, each once.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._of: dict[nn.Parameter, nn.Parameter] = {}
        for p in parameters:
            self._of[p] = p if p.dtype.itemsize >= 4 else nn.Parameter(p.detach().float())
            if self._of[p] is not p:
                # Holds the master alone: a hook that leads back to its parameter would keep both for ever.
                p.register_post_accumulate_grad_hook(partial(_take, self._of[p]))  # type: ignore[no-untyped-call]
        self._rounded = [(p, master) for p, master in self._of.items() if p is not master]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """For the optimizer; their gradients are the accumulated ones."""
        return list(self._of.values())

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """A parameter's master; itself where it has none."""
        return self._of.get(parameter, parameter)

    @torch.no_grad()
    def write(self) -> None:
        """Round the masters into the network, to the nearest."""
        if self._rounded:
            parameters, masters = zip(*self._rounded, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))

    @torch.no_grad()
    def read(self, named: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
        """Take the masters from weights of the same names, in place; 16-bit ones will do."""
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

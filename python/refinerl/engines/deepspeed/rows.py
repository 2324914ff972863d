"""A network as DeepSpeed sees it: its outputs are a tuple of tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.records import Outputs, Rows


class TupleNetwork(nn.Module):
    """A network that gives its outputs as a tuple, because ZeRO-3 looks for tensors in tuples and not in records.

    The cross-entropy kernel reads the head's weights without calling the head. Registered as parameters of this module
    (`external`), they are gathered until the end of its forward pass, and again in the backward pass.
    """

    def __init__(self, network: PolicyNetwork | ValueNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Rows, weights: Tensor | None = None) -> tuple[Tensor | int | None, ...]:
        """Compute the network's `Outputs`, as a tuple of its fields."""
        outputs = self.network(rows, weights)
        return outputs.logprobs, outputs.entropies, outputs.weighted_nll, outputs.values, outputs.shared

    def external(self) -> Iterable[nn.Parameter]:
        """List the parameters that are used outside their own module."""
        head = self.network.model.get_output_embeddings() if isinstance(self.network, PolicyNetwork) else None
        return () if head is None else head.parameters()


def outputs_of(found: tuple[Any, ...]) -> Outputs:
    """Make `Outputs` of the tuple that `TupleNetwork` gives."""
    return Outputs(logprobs=found[0], entropies=found[1], weighted_nll=found[2], values=found[3], shared=found[4])


def one_token() -> Rows:
    """Make a row of one prompt token and one target."""
    number = torch.zeros(1, dtype=torch.int64)
    given = {
        "input_ids": torch.zeros(1, 2, dtype=torch.int64),
        "attention_mask": torch.ones(1, 2, dtype=torch.bool),
        "prompt_lengths": number + 1,
        "targets": torch.zeros(1, 1, dtype=torch.int64),
        "mask": torch.ones(1, 1, dtype=torch.bool),
        "is_constraint": torch.zeros(1, dtype=torch.bool),
    }
    return Rows(**{field.name: given.get(field.name, number) for field in fields(Rows)})  # no network reads the others

"""The networks that are trained: a trunk with a language-model head (policy, reference) or a value head (critic).

Both are modules whose `forward` takes `Rows` and returns `Outputs`, so that any trainer can wrap them whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from refinerl.engines.models import quiet
from refinerl.engines.packing import SharesPrefixes, States, read_states
from refinerl.errors import UserError
from refinerl.kernels import availability
from refinerl.kernels.cross_entropy import Impl, sequence_cross_entropy, token_logprobs
from refinerl.records import Outputs, Rows

_VALUE_HEAD = "value_head.safetensors"


class PolicyNetwork(SharesPrefixes):
    """A causal language model as π(target | prefix).

    Args:
        model: any Hugging Face causal language model whose logits are its head times its last hidden state.
        temperature: the sampling temperature, which divides the logits: ratio, KL, entropy and cost are those of the
            distribution that was sampled from.
        impl: the cross-entropy implementation.

    Raises:
        UserError: the model does more to its logits than its head does (soft-capping, scaling), or this build has no
            such kernel.
    """

    def __init__(self, model: PreTrainedModel, *, temperature: float = 1.0, impl: Impl = "auto") -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.impl: Impl = impl
        if impl != "auto" and not (state := availability(impl)).usable:
            raise UserError(f"the cross-entropy kernel {impl!r} cannot run here: {state.reason}")
        _verify_head(model)

    def forward(self, rows: Rows, weights: Tensor | None = None) -> Outputs:
        """Compute logprobs and entropies of all targets, and the constraint's cost Σ weights·nll.

        With gradients, each target of a y row is differentiable, those of a constraint row only through `weighted_nll`;
        logprobs of constraint rows of weight 0 are then not computed and read zero. `weights` is (R,), None for 0.
        """
        found = read_states(self.trunk, rows, self.sharing)
        of_constraint = rows.is_constraint.to(found.row.device)[found.row]  # (N,)
        weights = torch.zeros(len(rows), dtype=torch.float64) if weights is None else weights
        weight = weights.to(found.row.device)[found.row] * of_constraint  # (N,)
        head = self.model.get_output_embeddings()
        options: dict[str, Any] = {"temperature": self.temperature, "bias": head.bias, "impl": self.impl}
        if found.hidden.requires_grad or (torch.is_grad_enabled() and head.weight.requires_grad):
            logprobs, entropies, weighted_nll = _differentiable(found, of_constraint, weight, head.weight, options)
            weightless = of_constraint & (weight == 0)
            logprobs, entropies = (
                torch.where(of_constraint, t.detach(), t).masked_fill(weightless, 0.0) for t in (logprobs, entropies)
            )
        else:
            logprobs, entropies = token_logprobs(found.hidden, head.weight, found.targets, **options)
            logprobs, entropies = logprobs[found.which], entropies[found.which]
            weighted_nll = -(weight.to(logprobs.dtype) * logprobs)[of_constraint].sum()
        return Outputs(
            logprobs=_spread(logprobs, found, rows),
            entropies=_spread(entropies, found, rows),
            weighted_nll=weighted_nll,
            shared=found.shared,
        )

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its head."""
        return self.model.base_model

    @property
    def whole(self) -> Any:
        """The model without this wrapper."""
        return self.model

    def export(self, folder: Path, weights: Mapping[str, Tensor] | None = None, *, merge: bool = True) -> None:
        """Write the model as `AutoModelForCausalLM.from_pretrained` reads it.

        `weights`, by the names of `named_parameters`, replace this module's own where those are not whole. `merge` is
        for `LoraNetwork`.
        """
        with quiet():
            self.model.save_pretrained(folder, state_dict=_model_state(self.model, weights))


class ValueNetwork(SharesPrefixes):
    """A trunk with a scalar head as V(s_t), the value of the state in which target t is chosen.

    V(s_t) is read at the position before token t, where the policy predicts it (as in OpenRLHF and TRL). The head
    starts at zero, so that an untrained critic values every state at 0.

    Args:
        trunk: a Hugging Face model without a head, such as `model.base_model` of a causal language model.
        head: a linear layer to one number to start from, such as a reward model's.
    """

    def __init__(self, trunk: PreTrainedModel, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.model = trunk
        if head is None:
            width = trunk.config.get_text_config().hidden_size
            head = nn.Linear(width, 1, device=trunk.device, dtype=trunk.dtype)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.head = head

    def forward(self, rows: Rows, weights: Tensor | None = None) -> Outputs:
        """Compute the values of all targets; the other fields are empty."""
        found = read_states(self.trunk, rows, self.sharing)
        values = self.head(found.hidden).squeeze(-1)
        values = (values if values.dtype == torch.float64 else values.float())[found.which]
        empty = torch.zeros((0, 0), device=values.device)  # stands for what a critic does not compute
        nothing = found.hidden.new_zeros(())
        return Outputs(empty, empty, nothing, values=_spread(values, found, rows), shared=found.shared)

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its head."""
        return self.model

    def export(self, folder: Path, weights: Mapping[str, Tensor] | None = None, *, merge: bool = True) -> None:
        """Write the trunk as `AutoModel.from_pretrained` reads it, and the head beside it.

        `weights` as in `PolicyNetwork.export`.
        """
        with quiet():
            self.model.save_pretrained(folder, state_dict=_model_state(self.model, weights))
        head = {name: t if weights is None else weights[f"head.{name}"] for name, t in self.head.state_dict().items()}
        save_file({name: t.contiguous() for name, t in head.items()}, folder / _VALUE_HEAD)


def recompute(network: PolicyNetwork | ValueNetwork, *, reentrant: bool = False) -> None:
    """Save memory by computing each layer's activations again in the backward pass."""
    network.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        network.model.enable_input_require_grads()
    for module in network.modules():  # these layers do it only in training mode
        module.training = isinstance(module, GradientCheckpointingLayer)


def _model_state(model: PreTrainedModel, weights: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return the state for `save_pretrained`: a network's weights by the model's own names, and the model's buffers."""
    if weights is None:
        return None
    state = {name.removeprefix("model."): t for name, t in weights.items() if name.startswith("model.")}
    buffers = dict(model.named_buffers())
    return state | {name: t for name, t in model.state_dict().items() if name in buffers}


def _differentiable(
    found: States, of_constraint: Tensor, weight: Tensor, head: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logprobs and entropies of the N targets, and Σ weight·nll of those of constraint rows.

    Targets that no y has go through the kernel whose weights are known; it needs one product of matrices less.
    """
    count = len(found.targets)
    sums = weight.new_zeros(count).index_add_(0, found.which, weight)
    of_y = torch.zeros(count, dtype=torch.bool, device=found.which.device)
    of_y[found.which[~of_constraint]] = True
    y, c = of_y.nonzero().squeeze(-1), (~of_y).nonzero().squeeze(-1)
    logprobs, entropies = token_logprobs(found.hidden[y], head, found.targets[y], **options)
    cost = sequence_cross_entropy(found.hidden[c], head, found.targets[c], weights=sums[c], **options)
    weighted_nll = cost.cost
    if found.shared:  # ỹ begins as a y does
        weighted_nll = weighted_nll - (sums[y] * logprobs.double()).sum().to(weighted_nll.dtype)
    order = torch.cat([y, c])
    at = torch.empty_like(order).index_copy_(0, order, torch.arange(count, device=order.device))[found.which]
    return torch.cat([logprobs, -cost.nll])[at], torch.cat([entropies, cost.entropy])[at], weighted_nll


def _spread(values: Tensor, found: States, rows: Rows) -> Tensor:
    """Put (N,) values at their places in (R, T), with zeros elsewhere."""
    return values.new_zeros(rows.mask.shape).index_put((found.row, found.token), values)


@torch.no_grad()
def _verify_head(model: PreTrainedModel) -> None:
    """Check on eight tokens that the logits are the head times the last hidden state."""
    ids = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    head = model.get_output_embeddings()
    kind = getattr(model.config, "model_type", type(model).__name__)
    if not isinstance(head, nn.Linear):
        raise UserError(f"models of type {kind!r} cannot be trained: their language-model head is not a linear layer")
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    mine = F.linear(hidden, head.weight, head.bias).float()
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    tolerance = 2e-2 if model.dtype.itemsize < 4 else 1e-4
    if not (mine - theirs).abs().max() <= tolerance * theirs.abs().max():
        raise UserError(
            f"models of type {kind!r} cannot be trained: their logits are not the language-model head times the last "
            "hidden state (soft-capping or scaling), which the cross-entropy kernels assume"
        )

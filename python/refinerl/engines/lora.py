"""A policy that trains a LoRA adapter over frozen weights. The only file that imports peft.

With the adapter switched off the same weights are the reference and the refiner, so a run holds one model.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from typing_extensions import Self

from refinerl.engines.models import quiet
from refinerl.engines.networks import PolicyNetwork
from refinerl.errors import UserError, pip_install
from refinerl.kernels.cross_entropy import Impl

_NAME = "default"
MERGED = "merged"
"""Folder of the merged model inside an export."""


class LoraNetwork(PolicyNetwork):
    """A causal language model with a LoRA adapter: W·x + alpha/rank·B·A·x, of which only A and B are trained.

    See arXiv:2106.09685.

    Args:
        model: is changed in place: its linear layers are wrapped with the adapter's. B starts at zero.
        rank: the adapter's.
        alpha: the adapter's scale times the rank.
        targets: names of linear layers, such as `q_proj`; empty: all but the head.
        merge: `export` also writes the model with the adapter added to its weights.
        temperature: as in `PolicyNetwork`, and so is `impl`.
        adapted: the `PeftModel` around `model` if that has its adapter already (`check_adapted`); `rank`, `alpha` and
            `targets` are then those of that adapter.

    Raises:
        UserError: peft is not installed, or a target names no linear layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rank: int,
        alpha: int,
        targets: Sequence[str] = (),
        merge: bool = False,
        temperature: float = 1.0,
        impl: Impl = "auto",
        adapted: Any = None,
    ) -> None:
        super().__init__(model, temperature=temperature, impl=impl)
        if importlib.util.find_spec("peft") is None:
            raise UserError(
                f"lora.rank asks for peft, which is not installed: {pip_install('peft')}, or set lora.rank=0, which "
                "trains all weights"
            )
        import peft
        from peft.tuners.tuners_utils import BaseTunerLayer

        if adapted is None:
            known = _linear_layers(model)
            unknown = sorted(set(targets) - set(known))
            if unknown:
                raise UserError(f"lora.targets must be among {', '.join(known)}, got {', '.join(unknown)}")
            config = peft.LoraConfig(
                task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(targets or known), lora_dropout=0.0
            )
            adapted = peft.get_peft_model(model, config)
        # In a tuple, so that the model does not become a submodule twice.
        self._handle: tuple[Any] = (adapted,)
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
        self.merge = merge
        self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switch training of the adapter on or off; the model's own weights are never trained."""
        for name, p in self.named_parameters():
            p.requires_grad_(requires_grad and ".lora_" in name)
        return self

    @property
    def whole(self) -> Any:
        """The `PeftModel`."""
        return self._handle[0]

    @contextmanager
    def base(self) -> Iterator[None]:
        """Switch the adapter off in a context."""
        learns = [(p, p.requires_grad) for p in self.parameters()]
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)
            for p, before in learns:
                p.requires_grad_(before)

    def export(self, folder: Path, weights: Mapping[str, Tensor] | None = None, *, merge: bool = True) -> None:
        """Write the adapter as `PeftModel.from_pretrained` and `AutoModelForCausalLM.from_pretrained` read it.

        If both `merge` and `self.merge` are True, write the whole model too, in the folder `merged`. `weights` as in
        `PolicyNetwork.export`.
        """
        (handle,) = self._handle
        state = self.model.state_dict()
        if weights is not None:
            first = {id(p): name for name, p in self.model.named_parameters()}  # tied ones are there once
            every = self.model.named_parameters(remove_duplicate=False)
            state |= {name: weights[f"model.{first[id(p)]}"] for name, p in every}
        handle.save_pretrained(folder, state_dict={f"base_model.model.{name}": t for name, t in state.items()})
        (folder / "README.md").unlink(missing_ok=True)  # peft's, without contents
        if self.model.generation_config is not None:
            self.model.generation_config.save_pretrained(folder)  # names the tokens at which an answer ends
        if self.merge and merge:
            _save(self.model, self._merged_weights(state), folder / MERGED)

    @torch.no_grad()
    def _merged_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add B·A to the adapted weights and give all by their names without an adapter; the others are not copied."""
        merged = {name.replace(".base_layer.", "."): t for name, t in state.items() if ".lora_" not in name}
        for name, module in self.model.named_modules():
            if module in self._layers:
                a, b = (state[f"{name}.lora_{part}.{_NAME}.weight"] for part in "AB")
                weight = merged[f"{name}.weight"]
                merged[f"{name}.weight"] = (weight + b @ a * module.scaling[_NAME]).to(weight.dtype)
        return merged


def is_adapted(model: Any) -> bool:
    """Tell whether a model is peft's, without importing peft."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def check_adapted(adapted: Any) -> tuple[int, int, tuple[str, ...]]:
    """Return rank, alpha and targets of a `PeftModel`'s adapter.

    Raises:
        UserError: the model does not have exactly one adapter, a LoRA adapter named `default` that is all that is
            trained.
    """
    config = adapted.peft_config.get(_NAME)
    if config is None or len(adapted.peft_config) > 1:
        raise UserError(
            f"the peft model must have one adapter, named {_NAME!r}, got {', '.join(adapted.peft_config) or 'none'}"
        )
    kind = getattr(config.peft_type, "value", str(config.peft_type))
    if kind != "LORA":
        raise UserError(f"the peft model must have a LoRA adapter, got {kind}")
    if config.modules_to_save or config.bias != "none":
        raise UserError(
            "the peft model's adapter must be all that is trained: give it modules_to_save=None and bias='none', got "
            f"{config.modules_to_save} and {config.bias!r}"
        )
    targets = config.target_modules
    return config.r, config.lora_alpha, () if targets is None or isinstance(targets, str) else tuple(sorted(targets))


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """List the names of the linear layers that may have an adapter: all but the head."""
    linear = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    head = next(name for name, m in model.named_modules() if m is model.get_output_embeddings())
    return sorted(linear - {head.rpartition(".")[2]})


def on_disk(weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copy an adapter's tensors, by the names that peft gives them on disk.

    Raises:
        ValueError: a tensor is not an adapter's.
    """
    tensors = {}
    for name, tensor in weights:
        if ".lora_" not in name:
            raise ValueError(f"weights must be those of the adapter, got {name}")
        # vLLM multiplies B by the scale in place, which must not be the trainer's tensor.
        tensors["base_model.model." + name.replace(".default.", ".")] = tensor.detach().to("cpu", copy=True)
    return tensors


def _save(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Save the model under the names of a model without an adapter; `save_pretrained` would write the adapter's."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(model.config, dtype=model.dtype)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    with quiet():
        plain.save_pretrained(folder)

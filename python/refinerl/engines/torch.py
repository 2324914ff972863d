"""Training in this process, with plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from refinerl.engines.lora import LoraNetwork
from refinerl.engines.masters import Masters
from refinerl.engines.networks import PolicyNetwork, ValueNetwork, recompute
from refinerl.engines.optimization import Optimization, finite, restore
from refinerl.records import Outputs, Rows

_STATE = "trainer.pt"


class TorchTrainer:
    """One model on one device, trained with AdamW or frozen.

    A network in bfloat16 computes in bfloat16 and is trained in float32: the optimizer has weights and gradients of its
    own (`Masters`), and each step rounds those weights into the network.

    Args:
        network: stays on its device, in its type. It is kept in evaluation mode: dropout would make the ratio of two
            forward passes compare dropout masks instead of policies.
        optimization: None freezes the network.
        gradient_checkpointing: save memory by computing activations again in the backward pass.
        home: the device of a frozen network while it is awake; between `sleep` and `wake` it is on the CPU. None: it
            stays where it is.

    Raises:
        ValueError: `home` is given for a network that is trained.
    """

    def __init__(
        self,
        network: PolicyNetwork | ValueNetwork,
        optimization: Optimization | None = None,
        *,
        gradient_checkpointing: bool = False,
        home: str | None = None,
    ) -> None:
        if home is not None and optimization is not None:
            raise ValueError("home must be None for a network that is trained: its optimizer cannot move")
        self.network = network.eval().requires_grad_(optimization is not None)
        self.optimization = optimization
        self._home = home
        self.steps = 0
        """Optimizer steps taken."""
        self._masters = Masters(p for p in network.parameters() if p.requires_grad)
        lora = isinstance(network, LoraNetwork)
        self._fixed = {name for name in network.state_dict() if lora and ".lora_" not in name}
        """Names of frozen weights, which checkpoints leave out."""
        self._optimizer = optimization.adamw(self._masters.parameters) if optimization else None
        if gradient_checkpointing:
            recompute(network)

    def forward(self, rows: Rows, weights: Tensor | None = None, *, adapter: bool = True) -> Outputs:
        """Compute logprobs and entropies of the targets, or values.

        They are differentiable unless the network is frozen, or under `torch.no_grad()`.
        """
        base = self.network.base() if not adapter and isinstance(self.network, LoraNetwork) else nullcontext()
        with base:
            outputs: Outputs = self.network(rows, weights)
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; a loss that depends on no weight (no rows) adds none."""
        if loss.requires_grad:
            torch.autograd.backward(loss)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        _, optimization = self._trained()
        return optimization.learning_rate * optimization.schedule.factor(self.steps)

    def step(self) -> float:
        """Clip, update, advance the schedule, zero the gradients; return the gradient's norm before clipping.

        If the norm is not finite, nothing changes, not even the gradients, and it is returned all the same.
        """
        optimizer, optimization = self._trained()
        parameters = self._masters.parameters
        norm = self._norm()
        if torch.isfinite(norm):
            if optimization.max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, optimization.max_grad_norm, norm)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate
            optimizer.step()
            self._masters.write()
            self.steps += 1
            self.discard()
        return float(norm)

    reads_gradients = True

    def gradient_norm(self) -> float:
        """Return the norm of the accumulated gradient."""
        return float(self._norm())

    def _norm(self) -> Tensor:
        gradients = [p.grad for p in self._masters.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def discard(self) -> None:
        """Forget the accumulated gradients."""
        for p in self._masters.parameters:
            p.grad = None

    def bad_gradient(self) -> str | None:
        """Name the first parameter whose accumulated gradient is not finite; None if there is none."""
        for name, p in self.network.model.named_parameters():
            gradient = self._masters.of(p).grad
            if gradient is not None and not finite(gradient):
                return str(name)
        return None

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Return the trained weights by their names in the Hugging Face model; of a LoRA policy the adapter.

        Tied weights come once.
        """
        return ((name, p.detach()) for name, p in self.network.model.named_parameters() if p.requires_grad)

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and schedule, so that `load` continues exactly; of a LoRA policy the adapter alone.

        Weights that are trained in bfloat16 are saved as their float32 masters.
        """
        folder.mkdir(parents=True, exist_ok=True)
        optimizer = self._optimizer.state_dict() if self._optimizer else None
        masters = {name: self._masters.of(p).detach() for name, p in self._named().items()}
        network = {name: t for name, t in (self.network.state_dict() | masters).items() if name not in self._fixed}
        torch.save({"network": network, "optimizer": optimizer, "steps": self.steps}, folder / _STATE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. The file is mapped on the host and copied from there tensor by tensor.

        Raises:
            ValueError: it holds the weights of another network.
        """
        state = torch.load(folder / _STATE, map_location="cpu", mmap=True, weights_only=True)
        weights = {name: t for name, t in self.network.state_dict().items() if name not in self._fixed}
        if {name: t.shape for name, t in weights.items()} != {name: t.shape for name, t in state["network"].items()}:
            raise ValueError(f"{folder} holds the weights of another network")
        for name, t in weights.items():
            t.copy_(state["network"][name])
        self._masters.read(self._named(), state["network"])
        if self._optimizer:
            restore(self._optimizer, state["optimizer"])
        self.steps = state["steps"]
        self.discard()

    def export(self, folder: Path, *, merge: bool = True) -> None:
        """Write the model as `from_pretrained` reads it; `merge` as in `LoraNetwork.export`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.export(folder, merge=merge)

    def sleep(self) -> None:
        """Move a frozen network to the CPU if it has a `home`."""
        if self._home is not None:
            self.network.to("cpu")

    def wake(self) -> None:
        """Move it back to its `home`."""
        if self._home is not None:
            self.network.to(self._home)

    def _named(self) -> dict[str, nn.Parameter]:
        """Return the parameters by all their names, as `state_dict` has them."""
        return dict(self.network.named_parameters(remove_duplicate=False))

    def _trained(self) -> tuple[torch.optim.Optimizer, Optimization]:
        if self._optimizer is None or self.optimization is None:
            raise RuntimeError("this trainer's network is frozen")
        return self._optimizer, self.optimization

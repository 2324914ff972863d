"""Training with DeepSpeed: ZeRO 0–3 over one or many ranks.

DeepSpeed averages gradients over the ranks. That is undone here, so that the gradient is that of the sum of all ranks'
losses, as on one rank.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refinerl.contracts import World
from refinerl.engines.deepspeed import engine
from refinerl.engines.deepspeed.rows import TupleNetwork, one_token, outputs_of
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.networks import PolicyNetwork, ValueNetwork, recompute
from refinerl.engines.optimization import Optimization, finite
from refinerl.errors import UserError
from refinerl.records import Outputs, Rows

_TAG = "shards"


class DeepSpeedTrainer:
    """One model over all ranks, trained with AdamW or frozen. All ranks make every call together.

    Args:
        network: in full on each rank, on the CPU or the rank's GPU. Kept in evaluation mode, as `TorchTrainer` does.
        optimization: None freezes the network; only ZeRO-3 spreads it over the ranks then.
        world: the ranks.
        native: DeepSpeed's own configuration, without the keys that are ours (`refinerl.config` refuses them). With a
            network in bfloat16, from stage 1 on, `bf16` is switched on, which keeps float32 weights for the optimizer,
            and gradients of micro-batches are summed in float32 unless `data_types.grad_accum_dtype` says otherwise.
        gradient_checkpointing: save memory by computing activations again in the backward pass.

    Raises:
        UserError: DeepSpeed is not installed, is of an untested series, or refuses the configuration.
    """

    def __init__(
        self,
        network: PolicyNetwork | ValueNetwork,
        optimization: Optimization | None,
        world: World,
        native: Mapping[str, Any],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.network = network.eval().requires_grad_(optimization is not None)
        self.optimization = optimization
        self.world = world
        stage = int((native.get("zero_optimization") or {}).get("stage", 0))
        self.stage = stage if optimization is not None or stage == 3 else 0
        learning = [p for p in network.parameters() if p.requires_grad]
        if self.stage == 0 and any(p.dtype.itemsize < 4 for p in learning):
            raise UserError(
                "deepspeed.zero_optimization.stage must be 1, 2 or 3 to train weights in 16 bits, got 0: in stage 0 "
                "DeepSpeed keeps no float32 weights, and small steps would be lost"
            )
        self.steps = 0
        """Optimizer steps taken."""
        self._pending = False
        self._trained_names = [name for name, p in network.named_parameters() if p.requires_grad]
        if gradient_checkpointing:
            # Without re-entrance PyTorch compares recomputed tensors with the saved ones, which ZeRO-3 has released.
            recompute(network, reentrant=self.stage == 3)
        self._rows = TupleNetwork(network)
        optimizer: torch.optim.Optimizer | None = None
        if optimization is not None:
            adamw = engine.pausable(optimization.adamw(learning))
            optimizer = engine.guarded(adamw, optimization.max_grad_norm) if self.stage == 0 else adamw
        self._adamw: Any = optimizer
        self.reads_gradients = not engine.steps_elsewhere(native)
        config = engine.configuration(native, network, self.stage, optimization)
        self._engine = engine.initialize(self._rows, optimizer, config)
        self._bad = torch.zeros(len(self._trained_names), dtype=torch.bool, device=self._engine.device)
        named = dict(network.named_parameters())
        for i, name in enumerate(self._trained_names):
            named[name].register_hook(self._noting(i))  # type: ignore[no-untyped-call]

    # --- the contract ---------------------------------------------------------------------------

    def forward(self, rows: Rows, weights: Tensor | None = None, *, adapter: bool = True) -> Outputs:
        """Compute logprobs and entropies of the targets, or values.

        They are differentiable unless the network is frozen, or under `torch.no_grad()`. Without rows all layers still
        run, on one token, because other ranks may wait for them in a collective.
        """
        if not adapter and isinstance(self.network, LoraNetwork):
            with self.network.base():
                return self.forward(rows, weights)
        if len(rows):
            return outputs_of(self._engine(rows, weights))
        outputs = outputs_of(self._engine(one_token()))
        empty = rows.mask.shape
        return Outputs(
            logprobs=outputs.logprobs[:0, :0].reshape(empty) if outputs.logprobs.numel() else outputs.logprobs,
            entropies=outputs.entropies[:0, :0].reshape(empty) if outputs.entropies.numel() else outputs.entropies,
            weighted_nll=0.0 * outputs.weighted_nll + 0.0 * outputs.logprobs.sum(),
            values=None if outputs.values is None else outputs.values[:0, :0].reshape(empty),
        )

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients."""
        self._pending = True
        self._engine.backward(loss * self.world.size)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        optimization = self._optimization()
        return optimization.learning_rate * optimization.schedule.factor(self.steps)

    def step(self) -> float:
        """Clip, update, advance the schedule; return the gradient's norm before clipping, over all ranks.

        If the norm is not finite, weights, optimizer and schedule do not change, and it is returned all the same.
        """
        self._optimization()
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._engine.step()
        self._pending = False
        norm = float(self._engine.optimizer._global_grad_norm)
        if torch.isfinite(torch.tensor(norm)):
            self.steps += 1
            self._bad.zero_()
        return norm

    def gradient_norm(self) -> float:
        """Return the norm of the accumulated gradient over all ranks, and forget the gradient.

        DeepSpeed has the norm only in a step: here one in which AdamW does nothing, so that weights and moments stay.
        """
        optimizer = self._engine.optimizer
        linked = getattr(optimizer, "_hp_optimizer_states_linked", True)
        self._adamw.paused = True
        try:
            self._engine.step()
        finally:
            self._adamw.paused = False
        if not linked:  # to AdamW's moments, which do not exist before its first step
            optimizer._hp_optimizer_states_linked = False
        self._pending = False
        return float(optimizer._global_grad_norm)

    def discard(self) -> None:
        """Forget the accumulated gradients.

        DeepSpeed drops them itself when the norm is not finite, so one more gradient makes it NaN.
        """
        if self._pending:
            outputs = self.forward(one_token())
            value = outputs.logprobs.sum() if outputs.values is None else outputs.values.sum()
            self.backward(value * float("nan"))
            self.step()
        self._bad.zero_()

    def bad_gradient(self) -> str | None:
        """Name the first parameter whose gradient was not finite on some rank since the last step or `discard`."""
        bad = self.world.all_reduce(self._bad.int(), "max").nonzero().flatten()
        return self._trained_names[int(bad[0])].removeprefix("model.") if len(bad) else None

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Return the trained weights by their names in the Hugging Face model; of a LoRA policy the adapter.

        Tied weights come once. Under ZeRO-3 each is gathered when it is asked for, and all ranks must ask for all. The
        caller may keep it: vLLM holds the weights of a layer until it has them all.
        """
        for name, p in self.network.model.named_parameters():
            if p.requires_grad:
                with self._gathered([p]):
                    whole = p.detach()  # keeps the gathered tensor, to which DeepSpeed only drops its reference
                yield name, whole
                del whole

    def save(self, folder: Path) -> None:
        """Write each rank's shards of weights and optimizer, and the schedule, so that `load` continues exactly."""
        self._engine.save_checkpoint(
            str(folder),
            tag=_TAG,
            client_state={"refinerl_steps": self.steps},
            exclude_frozen_parameters=isinstance(self.network, LoraNetwork),
        )

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, on as many ranks and in the same stage.

        Raises:
            UserError: another stage wrote it, or it cannot be read.
        """
        whole = not isinstance(self.network, LoraNetwork)
        try:
            with redirect_stdout(io.StringIO()):  # it prints what it does
                path, state = self._engine.load_checkpoint(str(folder), tag=_TAG, load_module_strict=whole)
        except FileNotFoundError as error:  # the shards of a stage have names of their own
            raise UserError(
                f"{folder} was written with another ZeRO stage than {self.stage}: go on with the one that it has, "
                "or begin a new run (in bfloat16 a run without a stage had 0 in earlier versions, and has 1 now)"
            ) from error
        if path is None:
            raise UserError(f"{folder} holds no checkpoint that DeepSpeed can read")
        self.steps = state["refinerl_steps"]
        self._bad.zero_()

    def export(self, folder: Path, *, merge: bool = True) -> None:
        """Write the model on rank 0, as `from_pretrained` reads it; `merge` as in `LoraNetwork.export`."""
        state: dict[str, Tensor] = {}
        for name, p in self.network.named_parameters():
            with self._gathered([p]):
                if self.world.rank == 0:
                    state[name] = p.detach().cpu().clone()
        if self.world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self.network.export(folder, state, merge=merge)
        self.world.barrier()

    def sleep(self) -> None:
        """Do nothing: `deepspeed.zero_optimization.offload_param` and `offload_optimizer` move tensors to the host."""

    def wake(self) -> None:
        """Do nothing, as `sleep` does."""

    # --- underneath -----------------------------------------------------------------------------

    def _gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        if self.stage != 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = engine.package().zero.GatheredParameters(parameters)
        return gathered

    def _noting(self, index: int) -> Any:
        """Make a hook that records on the device, without waiting for it, that a gradient was not finite."""

        def note(gradient: Tensor) -> None:
            self._bad[index] |= ~finite(gradient)

        return note

    def _optimization(self) -> Optimization:
        if self.optimization is None:
            raise RuntimeError("this trainer's network is frozen")
        return self.optimization

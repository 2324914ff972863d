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
    """One model over all ranks, trained with AdamW or frozen; every call is made by all ranks together.

    Args:
        network: in full on each rank, on the CPU or the rank's GPU. Kept in evaluation mode, as `TorchTrainer` does.
        optimization: None freezes the network; only ZeRO-3 spreads it over the ranks then.
        world: the ranks.
        native: DeepSpeed's own configuration, without what is ours (`refinerl.config` refuses it). A network in
            bfloat16 switches its bf16 on from stage 1, which keeps float32 weights for the optimizer, and adds up
            micro-batches in float32 unless `data_types.grad_accum_dtype` says otherwise.
        gradient_checkpointing: trade a second forward pass for the activations' memory.

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
                "deepspeed.zero_optimization.stage must be 1, 2 or 3 where weights in 16 bits learn, got 0: there "
                "DeepSpeed keeps no float32 weights, and small steps would be lost"
            )
        self.steps = 0
        """Optimizer steps taken."""
        self._pending = False
        self._trained_names = [name for name, p in network.named_parameters() if p.requires_grad]
        if gradient_checkpointing:
            # Without re-entrance PyTorch compares what it saved with what it computes again; ZeRO-3 has put that away.
            recompute(network, reentrant=self.stage == 3)
        self._rows = TupleNetwork(network)
        optimizer: torch.optim.Optimizer | None = None
        if optimization is not None:
            adamw = optimization.adamw(learning)
            optimizer = engine.guarded(adamw, optimization.max_grad_norm) if self.stage == 0 else adamw
        config = engine.configuration(native, network, self.stage, optimization)
        self._engine = engine.initialize(self._rows, optimizer, config)
        self._bad = torch.zeros(len(self._trained_names), dtype=torch.bool, device=self._engine.device)
        named = dict(network.named_parameters())
        for i, name in enumerate(self._trained_names):
            named[name].register_hook(self._noting(i))  # type: ignore[no-untyped-call]

    # --- the contract ---------------------------------------------------------------------------

    def forward(self, rows: Rows, weights: Tensor | None = None, *, adapter: bool = True) -> Outputs:
        """Logprobs and entropies of the targets, or values. Differentiable unless frozen or under `torch.no_grad()`.

        No rows: all layers run all the same, on one token, because other ranks may wait for them in a collective.
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
        """Of the next step."""
        optimization = self._optimization()
        return optimization.learning_rate * optimization.schedule.factor(self.steps)

    def step(self) -> float:
        """Clip, update, advance the schedule; returns the gradient's norm before clipping, over all ranks.

        A norm that is not finite leaves weights, optimizer and schedule untouched, and is returned.
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

    def discard(self) -> None:
        """Forget the accumulated gradients.

        DeepSpeed forgets them itself where the norm is not finite, so one more gradient makes it so.
        """
        if self._pending:
            outputs = self.forward(one_token())
            value = outputs.logprobs.sum() if outputs.values is None else outputs.values.sum()
            self.backward(value * float("nan"))
            self.step()
        self._bad.zero_()

    def bad_gradient(self) -> str | None:
        """The first parameter whose gradient was not finite on some rank, since the last step or `discard`."""
        bad = self.world.all_reduce(self._bad.int(), "max").nonzero().flatten()
        return self._trained_names[int(bad[0])].removeprefix("model.") if len(bad) else None

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """What learns, by its names in the Hugging Face model; tied parameters once. Of a LoRA policy: its adapter.

        Under ZeRO-3 each is gathered when it is asked for, and all ranks have to ask for all. It is the caller's then:
        vLLM keeps those of a layer until it has them all.
        """
        for name, p in self.network.model.named_parameters():
            if p.requires_grad:
                with self._gathered([p]):
                    whole = p.detach()  # holds what was gathered, which DeepSpeed only lets go of
                yield name, whole
                del whole

    def save(self, folder: Path) -> None:
        """Each rank its shards of weights and optimizer, and the schedule, so that `load` continues exactly."""
        self._engine.save_checkpoint(
            str(folder),
            tag=_TAG,
            client_state={"refinerl_steps": self.steps},
            exclude_frozen_parameters=isinstance(self.network, LoraNetwork),
        )

    def load(self, folder: Path) -> None:
        """Undo `save`; with as many ranks as saved, and the same stage.

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

    def export(self, folder: Path) -> None:
        """The model as `from_pretrained` reads it, written by rank 0."""
        state: dict[str, Tensor] = {}
        for name, p in self.network.named_parameters():
            with self._gathered([p]):
                if self.world.rank == 0:
                    state[name] = p.detach().cpu().clone()
        if self.world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self.network.export(folder, state)
        self.world.barrier()

    def sleep(self) -> None:
        """Nothing: `deepspeed.zero_optimization.offload_param` and `offload_optimizer` say what lies on the host."""

    def wake(self) -> None:
        """Nothing to undo."""

    # --- underneath -----------------------------------------------------------------------------

    def _gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        if self.stage != 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = engine.package().zero.GatheredParameters(parameters)
        return gathered

    def _noting(self, index: int) -> Any:
        """A hook that notes on the device, without waiting for it, that a gradient was not finite."""

        def note(gradient: Tensor) -> None:
            self._bad[index] |= ~finite(gradient)

        return note

    def _optimization(self) -> Optimization:
        if self.optimization is None:
            raise RuntimeError("this trainer's network is frozen")
        return self.optimization

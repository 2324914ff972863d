"""Training with DeepSpeed: ZeRO 0–3 over one or many ranks. The only file that imports it, and only when it is used.

DeepSpeed's own gradient accumulation is off (`managed_gradient_accumulation`: every `step` is the boundary), and its
averaging over ranks is undone, so that the gradient is that of the sum of all ranks' losses, as on one rank.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refinerl.contracts import World
from refinerl.engines.deepspeed.rows import TupleNetwork, one_token, outputs_of
from refinerl.engines.devices import accelerator
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.models import name_accelerator
from refinerl.engines.networks import PolicyNetwork, ValueNetwork, recompute
from refinerl.engines.optimization import Optimization, finite
from refinerl.engines.world import join_alone, leave_by
from refinerl.errors import UserError
from refinerl.records import Outputs, Rows

_TAG = "shards"
_NEEDED = (0, 19)
"""The first release whose caller may own the accumulation boundary in every ZeRO stage."""


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
        UserError: DeepSpeed is not installed, is too old, or refuses the configuration.
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
            optimizer = _guarded(adamw, optimization.max_grad_norm) if self.stage == 0 else adamw
        self._engine = _initialize(self._rows, optimizer, self._configuration(native))
        self._bad = torch.zeros(len(self._trained_names), dtype=torch.bool, device=self._engine.device)
        named = dict(network.named_parameters())
        for i, name in enumerate(self._trained_names):
            named[name].register_hook(self._noting(i))  # type: ignore[no-untyped-call]

    def _configuration(self, native: Mapping[str, Any]) -> dict[str, Any]:
        zero = {**(native.get("zero_optimization") or {}), "stage": self.stage}
        # DeepSpeed takes this many elements whatever the model's size: two GB, by its default.
        zero.setdefault("reduce_bucket_size", min(500_000_000, sum(p.numel() for p in self.network.parameters())))
        if self.stage != 2:
            zero["overlap_comm"] = False  # DeepSpeed overlaps beside an accumulation of ours only in stage 2
        config = {
            "zero_force_ds_cpu_optimizer": False,  # PyTorch's AdamW needs no compiler
            "steps_per_print": 2**31,
            **native,
            "zero_optimization": zero,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,
        }
        limit = None if self.optimization is None else self.optimization.max_grad_norm
        config["gradient_clipping"] = (limit or 0.0) if self.stage else 0.0  # in stage 0 our optimizer clips
        half = (config.get("bf16") or {}).get("enabled", self.network.model.dtype == torch.bfloat16 and self.stage > 0)
        config["bf16"] = {**(config.get("bf16") or {}), "enabled": half, "check_grad_overflow": True}
        if half:
            config["data_types"] = {"grad_accum_dtype": "fp32", **(config.get("data_types") or {})}
        if half and self.stage == 1:
            # Here gradients are reduced once a step, from their float32 sums; and their own are freed at once.
            config.setdefault("communication_data_type", "fp32")
            config["bf16"].setdefault("immediate_grad_update", True)
        return config

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
        gathered: AbstractContextManager[Any] = _deepspeed().zero.GatheredParameters(parameters)
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


def _guarded(optimizer: Any, max_grad_norm: float | None) -> Any:
    """AdamW that clips by itself and refuses a norm that is not finite, as DeepSpeed's optimizers of stage 1–3 do."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    take = optimizer.step

    def step() -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer._global_grad_norm = norm
        if torch.isfinite(norm):
            if max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
            take()

    optimizer.step = step
    return optimizer


def _deepspeed() -> Any:
    """The package, quiet."""
    name_accelerator()
    try:
        deepspeed: Any = importlib.import_module("deepspeed")
    except ImportError as error:
        raise UserError(
            f"engines.trainer=deepspeed needs a package that is not installed ({error.name or error}): "
            "pip install 'refinerl[deepspeed]', or choose engines.trainer=torch"
        ) from error
    version = tuple(int(part) for part in deepspeed.__version__.split("+")[0].split(".")[:2])
    if version < _NEEDED:
        raise UserError(
            f"engines.trainer=deepspeed needs DeepSpeed {'.'.join(map(str, _NEEDED))} or newer, this is "
            f"{deepspeed.__version__}: pip install -U 'refinerl[deepspeed]'"
        )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.*deprecated", FutureWarning)
    # On a CPU it would compile an operator for ranks that share memory, for minutes; gloo serves as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _initialize(module: TupleNetwork, optimizer: torch.optim.Optimizer | None, config: dict[str, Any]) -> Any:
    deepspeed = _deepspeed()
    join_alone()
    os.environ.setdefault("LOCAL_RANK", "0")  # it asks for that, even where there is one rank
    try:
        deepspeed.init_distributed(dist_backend=None if accelerator() == "cuda" else "gloo", verbose=False)
        leave_by(deepspeed.comm.destroy_process_group)  # a later run of this process would meet its dead groups
        with redirect_stdout(io.StringIO()):  # it prints the memory that stage 1 takes
            engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"DeepSpeed refuses the `deepspeed` section of the recipe: {error}") from error
    if config["zero_optimization"]["stage"] == 3:
        for parameter in module.external():
            deepspeed.zero.register_external_parameter(module, parameter)
    return engine

"""DeepSpeed's engine: the import of the package, the configuration of the engine and its start.

DeepSpeed's own gradient accumulation is off (`managed_gradient_accumulation`): every `step` is a boundary.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch

from refinerl.engines.deepspeed.rows import TupleNetwork
from refinerl.engines.devices import accelerator
from refinerl.engines.models import name_accelerator
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization
from refinerl.engines.releases import DEEPSPEED
from refinerl.engines.world import join_alone, leave_by
from refinerl.errors import UserError, pip_install


def package() -> Any:
    """Import DeepSpeed without its messages.

    Raises:
        UserError: it is not installed, cannot be imported, or is of an untested series.
    """
    DEEPSPEED.require()
    name_accelerator()
    try:
        deepspeed: Any = importlib.import_module("deepspeed")
    except ImportError as error:
        raise UserError(
            f"engines.trainer=deepspeed: the installed DeepSpeed cannot be imported ({error}); "
            f"{pip_install('deepspeed')} installs what it needs, and engines.trainer=torch needs none"
        ) from error
    DEEPSPEED.check(deepspeed.__version__)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.*deprecated", FutureWarning)
    # On a CPU DeepSpeed would compile an operator for ranks that share memory, for minutes; gloo serves as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def configuration(
    native: Mapping[str, Any],
    network: PolicyNetwork | ValueNetwork,
    stage: int,
    optimization: Optimization | None,
) -> dict[str, Any]:
    """Complete a user's DeepSpeed configuration with what is ours and with defaults that suit the network.

    Args:
        native: the user's.
        network: what is trained, or frozen where `optimization` is None.
        stage: ZeRO's, 0 to 3.
        optimization: from stage 1 DeepSpeed clips gradients to its `max_grad_norm`.
    """
    zero = {**(native.get("zero_optimization") or {}), "stage": stage}
    # DeepSpeed allocates this many elements whatever the model's size: 2 GB by its default.
    zero.setdefault("reduce_bucket_size", min(500_000_000, sum(p.numel() for p in network.parameters())))
    if stage != 2:
        zero["overlap_comm"] = False  # only in stage 2 does DeepSpeed overlap when the caller accumulates gradients
    config = {
        "zero_force_ds_cpu_optimizer": False,  # PyTorch's AdamW needs no compiler
        "steps_per_print": 2**31,
        **native,
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
    }
    limit = None if optimization is None else optimization.max_grad_norm
    config["gradient_clipping"] = (limit or 0.0) if stage else 0.0  # in stage 0 our optimizer clips
    half = (config.get("bf16") or {}).get("enabled", network.model.dtype == torch.bfloat16 and stage > 0)
    config["bf16"] = {**(config.get("bf16") or {}), "enabled": half, "check_grad_overflow": True}
    if half:
        config["data_types"] = {"grad_accum_dtype": "fp32", **(config.get("data_types") or {})}
    if half and stage == 1:
        # Here gradients are reduced once a step, from their float32 sums, and their 16-bit originals are freed at once.
        config.setdefault("communication_data_type", "fp32")
        config["bf16"].setdefault("immediate_grad_update", True)
    return config


def pausable(optimizer: Any) -> Any:
    """Let the optimizer do nothing while its attribute `paused` is true; DeepSpeed does all else that a step needs."""
    take = optimizer.step
    optimizer.paused = False

    def step(*args: Any, **options: Any) -> Any:
        return None if optimizer.paused else take(*args, **options)

    optimizer.step = step
    return optimizer


def steps_elsewhere(native: Mapping[str, Any]) -> bool:
    """True if a user's DeepSpeed configuration has steps taken by other optimizers than the one that it is given."""
    zero = native.get("zero_optimization") or {}
    offload = zero.get("offload_optimizer") or {}
    return bool(zero.get("zenflow") or offload.get("super_offload") or offload.get("ratio", 1.0) < 1.0)


def guarded(optimizer: Any, max_grad_norm: float | None) -> Any:
    """Let AdamW clip gradients and skip a step whose norm is not finite, as DeepSpeed's optimizers of stages 1–3 do."""
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


def initialize(module: TupleNetwork, optimizer: torch.optim.Optimizer | None, config: dict[str, Any]) -> Any:
    """Start DeepSpeed's engine, in the process group that there is, or in one of this process alone.

    Raises:
        UserError: DeepSpeed refuses the configuration.
    """
    deepspeed = package()
    join_alone()
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it even with one rank
    try:
        deepspeed.init_distributed(dist_backend=None if accelerator() == "cuda" else "gloo", verbose=False)
        leave_by(deepspeed.comm.destroy_process_group)  # else a later run in this process finds dead groups
        with redirect_stdout(io.StringIO()):  # it prints the memory of stage 1
            engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"DeepSpeed refuses the `deepspeed` section of the recipe: {error}") from error
    if config["zero_optimization"]["stage"] == 3:
        for parameter in module.external():
            deepspeed.zero.register_external_parameter(module, parameter)
    return engine

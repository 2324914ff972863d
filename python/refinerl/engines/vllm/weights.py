"""Loading of the policy's weights from the trainer's memory. These functions run inside vLLM's worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

ADAPTER = 1
"""The id of the only adapter."""


def take_over(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite the model's weights.

    Raises:
        ValueError: a weight that the model does not have, or not all that it has: the others may have been discarded.
    """
    model = worker.get_model()
    taken: set[str] = set()
    load_weights = model.load_weights

    def noting(weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        names: set[str] = load_weights(weights)
        taken.update(names)
        return names

    model.load_weights = noting
    try:
        worker.reload_weights(weights_iterator=iter(weights))
    finally:
        del model.load_weights
    missing = sorted({name for name, _ in model.named_parameters()} - taken)
    if missing:
        raise ValueError(f"weights must be all of the model's, and {len(missing)} are missing, such as {missing[0]}")


def repack_head(worker: Any) -> None:
    """Pack the head again: vLLM's CPU backend multiplies with a packed copy, which a reload of tied weights keeps."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in worker.get_model().modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def install_adapter(worker: Any, tensors: dict[str, Tensor], rank: int, alpha: int) -> None:
    """Load an adapter as vLLM does, from tensors instead of files."""
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    loras = worker.model_runner.lora_manager
    manager = loras._adapter_manager
    mapper = getattr(manager.model, "hf_to_vllm_mapper", None)
    adapter = LoRAModel.from_lora_tensors(
        ADAPTER,
        tensors,
        PEFTHelper.from_dict({"r": rank, "lora_alpha": alpha, "target_modules": []}),
        device="cpu",
        dtype=loras.lora_config.lora_dtype,
        model_vocab_size=loras.vocab_size,
        weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
    )
    manager.remove_adapter(ADAPTER)
    manager.add_adapter(adapter)
    manager.activate_adapter(ADAPTER)


def lora_rank(rank: int) -> int:
    """Return the smallest of vLLM's ranks that holds an adapter of this rank.

    >>> lora_rank(12)
    16
    """
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)

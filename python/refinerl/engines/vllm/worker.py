"""vLLM's worker for a GPU, as one of several in a process with memory and tables of its own. Imports vllm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from vllm.model_executor.layers import rotary_embedding
from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO
from vllm.v1.worker import workspace
from vllm.v1.worker.gpu_worker import Worker

from refinerl.engines.vllm.memory import CACHE, WEIGHTS, EngineMemory


class OneOfSeveral:
    """A mixin for a worker of vLLM's that makes it one of several in a process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._memory = EngineMemory()
        self._scratch: Any = None

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[None]:
        """Return the pool of weights or cache. Buffers and workspaces have none: some are shared by all engines."""
        return self._memory.pool(tag) if tag in (WEIGHTS, CACHE) else nullcontext()

    def _init_workspace_and_model_runner(self) -> None:
        super()._init_workspace_and_model_runner()  # type: ignore[misc]
        self._scratch = workspace._manager

    def load_model(self, **options: Any) -> None:
        """Load the model with rotary tables of its own: vLLM shares them, so they sleep with the first engine."""
        rotary_embedding._ROPE_DICT.clear()
        super().load_model(**options)  # type: ignore[misc]

    def execute_model(self, scheduled: Any) -> Any:
        """Run a step on the scratch memory of this engine's CUDA graphs, not on that of the last engine."""
        if self._scratch is not None:
            workspace._manager = self._scratch
        return super().execute_model(scheduled)  # type: ignore[misc]

    def reload_weights(self, *args: Any, **options: Any) -> None:
        """Reload the weights, and drop their old copy on the host."""
        super().reload_weights(*args, **options)  # type: ignore[misc]
        self._memory.forget_parameters(self._parameters())

    def sleep(self, level: int = 1) -> None:
        """Free this engine's memory: at level 1 parameters are kept on the host, at level 2 discarded."""
        torch.accelerator.synchronize()
        lora = self.vllm_config.lora_config is not None  # type: ignore[attr-defined]
        self._memory.sleep(self._parameters(), discard=level == 2, changes=lora)

    def wake_up(self, tags: list[str] | None = None) -> None:
        """Take the memory of `weights`, `kv_cache` or both again."""
        for tag in tags or (WEIGHTS, CACHE):
            self._memory.wake(tag)
        torch.accelerator.synchronize()

    def shutdown(self) -> None:
        """End the worker and free all memory of this engine, and no other's."""
        self._forget_reloads()
        with self._memory.closing():
            super().shutdown()  # type: ignore[misc]

    def _forget_reloads(self) -> None:
        """Drop vLLM's records of a reload, which would keep the layers alive."""
        model = getattr(getattr(self, "model_runner", None), "model", None)
        for layer in model.modules() if model is not None else ():
            LAYERWISE_INFO.pop(layer, None)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.get_model().parameters())  # type: ignore[attr-defined]


class SleepingWorker(OneOfSeveral, Worker):  # type: ignore[misc]
    """vLLM's worker for a GPU, one of several that sleep and wake separately."""

"""vLLM's worker for a GPU on a CPU's model runner: its own code loads, sleeps and wakes. Named to vLLM by its path."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu_worker import Worker

from refinerl.engines.vllm.worker import OneOfSeveral


class Ours(OneOfSeveral, CPUWorker):
    """One of several."""


class Theirs(CPUWorker):
    """As vLLM has it."""

    sleep = Worker.sleep
    wake_up = Worker.wake_up

    def load_model(self, **options: Any) -> None:
        self.model_config.enable_cumem_allocator = True  # which vLLM's configuration does on a GPU
        super().load_model(**options)

"""vLLM as a guest of this process: its import, and cleaning up what an engine leaves behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from refinerl.engines.releases import VLLM
from refinerl.errors import UserError


def import_vllm() -> Any:
    """Import the package, told to stay in this process and to be quiet; settings of the environment win.

    Raises:
        UserError: it is not installed, cannot be imported, or is of an untested series.
    """
    VLLM.require()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
    except Exception as error:  # a build for another torch or driver raises whatever its libraries do
        raise UserError(
            f"engines.generator=vllm: the installed vLLM cannot be imported ({type(error).__name__}: {error}); "
            "engines.generator=transformers needs none"
        ) from error
    VLLM.check(vllm.__version__)
    return vllm


class Custody:
    """The engines of this process, each freed here instead of by vLLM's own finalizer.

    vLLM's finalizer also destroys the process groups, those of the other engine and of DeepSpeed included. Here only
    the end of the last engine destroys them, and only if vLLM made the process's group itself.
    """

    def __init__(self) -> None:
        self._engines = 0
        self._made_group = False

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Count an engine that is made in this context, unless that fails."""
        before = torch.distributed.is_initialized()
        self._engines += 1
        try:
            yield
        except BaseException:
            self._made_group |= not before
            self._end_one()
            raise
        self._made_group |= not before

    def take(self, llm: Any) -> Callable[[], None]:
        """Return the function that frees the engine that was just made."""
        client = llm.llm_engine.engine_core
        client._finalizer.detach()
        shutdown: Callable[[], None] = client.engine_core.model_executor.shutdown

        def free() -> None:
            try:
                shutdown()
            finally:
                self._end_one()

        return free

    def _end_one(self) -> None:
        self._engines -= 1
        if self._engines or not self._made_group:
            return
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        self._made_group = False
        destroy_model_parallel()
        destroy_distributed_environment()


CUSTODY = Custody()


def name_shared_memory() -> None:
    """Name the shared memory of ranks on a CPU after this run.

    vLLM's name is the same in every run, so that shared memory left by a killed run would stop the next.
    """
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed as Shared

    run = [os.getpid(), time.time_ns()]  # rank 0's
    torch.distributed.broadcast_object_list(run)
    Shared.make_group_name = staticmethod(lambda group: f"refinerl-{run}-{group.unique_name}-{group.ranks}")


@contextlib.contextmanager
def on_current_device() -> Iterator[None]:
    """Let LOCAL_RANK name the process's current GPU in a context, because vLLM takes the GPU that it names."""
    before = os.environ.get("LOCAL_RANK")
    if before is not None and torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(torch.cuda.current_device())
    try:
        yield
    finally:
        if before is not None:
            os.environ["LOCAL_RANK"] = before

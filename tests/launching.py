"""Starts real ranks: two gloo processes on the CPU, by torchrun or by DeepSpeed's launcher."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

import devices
import refinerl

Launcher = Literal["torchrun", "deepspeed"]

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="deepspeed is not installed: pip install 'deepspeed>=0.19,<0.20'",
)
needs_vllm = pytest.mark.skipif(
    not devices.has_vllm_for_cpus(), reason="vLLM's CPU build is not installed (make setup says why)"
)
"""Its build for GPUs does not start where the GPU is hidden."""


def environment(**more: str) -> dict[str, str]:
    source = Path(refinerl.__file__).parents[1]
    path = os.pathsep.join([str(Path(__file__).parent), str(source), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def launch(
    launcher: Launcher | None,
    *arguments: str,
    script: Path | None = None,
    ranks: int = 2,
    timeout: float = 240,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Runs the training command, or a script, with these arguments; by hand in one process without a launcher."""
    target = [str(script)] if script else ["-m", "refinerl.train"]
    if launcher == "deepspeed":
        target = ["--module", "hidden_gpu", target[-1]]
    for _ in range(3):  # somebody may take a free port before the ranks do
        port = str(free_port())
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(ranks),
            "--master-port",
            port,
        ]
        deepspeed = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(ranks)]
        deepspeed += ["--master_port", port]
        start = {None: [sys.executable], "torchrun": torchrun, "deepspeed": deepspeed}[launcher]
        done = subprocess.run(
            [*start, *target, *arguments],
            env=environment(**env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if "EADDRINUSE" not in done.stderr:
            break
    return done


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

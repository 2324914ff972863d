"""A process's place among those that a launcher started. Imports no torch: the command line is read before that is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from refinerl.errors import UserError


@dataclass(frozen=True)
class Launched:
    """The facts in the environment: torchrun and DeepSpeed's launcher use the same names, srun has its own."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    """Host of rank 0."""

    @staticmethod
    def read(env: Mapping[str, str] = os.environ) -> Launched | None:
        """Read them; None for a process that was started by hand.

        Raises:
            UserError: srun started several tasks, and where rank 0 listens is not said.
        """
        if "RANK" in env and "WORLD_SIZE" in env and "MASTER_ADDR" in env:
            size = int(env["WORLD_SIZE"])
            return Launched(
                rank=int(env["RANK"]),
                size=size,
                local_rank=int(env.get("LOCAL_RANK", "0")),
                local_size=int(env.get("LOCAL_WORLD_SIZE", env.get("LOCAL_SIZE", size))),
                address=env["MASTER_ADDR"],
            )
        return _by_srun(env)

    def tell(self) -> None:
        """Give the facts torchrun's names: DeepSpeed and vLLM look for them there."""
        os.environ.setdefault("RANK", str(self.rank))
        os.environ.setdefault("WORLD_SIZE", str(self.size))
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(self.local_size))


def _by_srun(env: Mapping[str, str]) -> Launched | None:
    # Only a step of srun has this name. A batch script has SLURM_NTASKS and SLURM_PROCID too, and is one process.
    size = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
    if size == 1 or "SLURM_PROCID" not in env:
        return None
    if "MASTER_ADDR" not in env or "MASTER_PORT" not in env:
        raise UserError(
            f"srun started {size} tasks, and MASTER_ADDR and MASTER_PORT do not say where the first one listens: "
            "export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) MASTER_PORT=29500 in the "
            "batch script, or start one task (srun --ntasks=1)"
        )
    node = int(env.get("SLURM_NODEID", "0"))
    counts = _tasks_of_nodes(env.get("SLURM_STEP_TASKS_PER_NODE", str(size)))
    return Launched(
        rank=int(env["SLURM_PROCID"]),
        size=size,
        local_rank=int(env.get("SLURM_LOCALID", "0")),
        local_size=counts[node] if node < len(counts) else size,
        address=env["MASTER_ADDR"],
    )


def _tasks_of_nodes(text: str) -> list[int]:
    """Tasks of each node in Slurm's notation: `8(x2),4` are 8, 8 and 4."""
    return [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]

"""A process's place among those that a launcher started. Does not import torch, which the command line loads later."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from refinerl.errors import UserError


@dataclass(frozen=True)
class Launched:
    """The launcher's environment variables: torchrun and DeepSpeed's launcher use the same names, srun has its own."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    """Host of rank 0."""

    @staticmethod
    def read(env: Mapping[str, str] = os.environ) -> Launched | None:
        """Read the environment; None for a process that no launcher started.

        >>> env = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node-0", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}
        >>> Launched.read(env)
        Launched(rank=1, size=2, local_rank=1, local_size=2, address='node-0')
        >>> Launched.read({})

        Raises:
            UserError: there are several ranks, and a variable that they need is missing or wrong.
        """
        size = _count(env, "WORLD_SIZE", 1)
        if "RANK" in env and "WORLD_SIZE" in env and ("MASTER_ADDR" in env or size > 1):
            rank = _count(env, "RANK")
            if rank >= size:
                raise UserError(f"RANK must be from 0 to {size - 1}, got {rank}: WORLD_SIZE={size} counts the ranks")
            if size > 1 and not ("MASTER_ADDR" in env and "MASTER_PORT" in env):
                raise _half_set(size, "MASTER_ADDR and MASTER_PORT do not say where rank 0 listens")
            local = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in env else "LOCAL_SIZE"
            return Launched(
                rank=rank,
                size=size,
                local_rank=_count(env, "LOCAL_RANK", 0),
                local_size=_count(env, local, size),
                address=env["MASTER_ADDR"],
            )
        launched = _by_srun(env)
        if launched is None and size > 1:
            raise _half_set(size, "RANK does not say which this is")
        if launched is None and (rank := _count(env, "RANK", 0)):
            raise UserError(
                f"RANK={rank} in the environment says that this is one of several ranks, and WORLD_SIZE does not say "
                "of how many: start them by torchrun or deepspeed, which set both, or unset RANK to run one process"
            )
        return launched

    def tell(self) -> None:
        """Set torchrun's variables, which DeepSpeed and vLLM read, where they are not set."""
        os.environ.setdefault("RANK", str(self.rank))
        os.environ.setdefault("WORLD_SIZE", str(self.size))
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(self.local_size))


def _half_set(size: int, missing: str) -> UserError:
    return UserError(
        f"WORLD_SIZE={size} in the environment says that there are {size} ranks, and {missing}: start them by torchrun "
        "or deepspeed, which set these variables, or unset WORLD_SIZE and RANK to run one process"
    )


def _count(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = env.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"[0-9]+", text):
        raise UserError(f"{name} must be a whole number, got {text!r}: a launcher sets it, torchrun or deepspeed")
    return int(text)


def _by_srun(env: Mapping[str, str]) -> Launched | None:
    # Only a step of srun has this name. A batch script has SLURM_NTASKS and SLURM_PROCID too, and is one process.
    size = _count(env, "SLURM_STEP_NUM_TASKS", 1)
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
    """Read the tasks of each node in Slurm's notation.

    >>> _tasks_of_nodes("8(x2),4")
    [8, 8, 4]
    """
    return [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]

"""A world of one rank reduces to what it is given; one of many is refused where it could not work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from launching import environment, free_port
from machines import H100, stand_in
from refinerl.contracts import World
from refinerl.engines import world as world_module
from refinerl.engines.launched import Launched
from refinerl.engines.world import Ranks, WorldOfOne, dist
from refinerl.errors import UserError

LATE = """
import sys, time
import torch
from refinerl.engines.world import Launched, Ranks, dist, leave
launched = Launched.read()
store, *_ = next(dist.rendezvous("env://", launched.rank, launched.size))
before = dist.distributed_c10d.default_pg_timeout
Ranks(launched, store, 1.0)
group = dist.new_group()  # as DeepSpeed makes its groups: without a limit of its own
if launched.rank == 1:
    print("waiting", flush=True)
    try:
        dist.all_reduce(torch.zeros(1), group=group)
    except RuntimeError as error:
        print(error)
else:
    sys.stdin.read()  # never joins
leave()
assert dist.distributed_c10d.default_pg_timeout == before
"""


def test_one_rank() -> None:
    world: World = WorldOfOne()
    value = torch.tensor([1.0, 2.0])
    assert (world.rank, world.size) == (0, 1)
    assert torch.equal(world.all_reduce(value), value)
    assert torch.equal(world.all_reduce(value, "max"), value)
    assert world.all_gather_object({"a": 1}) == [{"a": 1}]
    world.barrier()


def test_ranks_that_have_the_same_gpu_are_refused_before_they_wait_for_each_other(monkeypatch):
    """As where Slurm shows all tasks of a machine its first GPU."""
    stand_in(monkeypatch, H100, replace(H100, uuid="0f77"))
    store = dist.HashStore()
    cuda = [torch.device("cuda", index) for index in (0, 1, 0)]
    for rank in (1, 2):
        world_module._compare(store, Launched(rank, 3, rank, 3, "node-0"), cuda[rank])
    with pytest.raises(UserError, match=r"^ranks 0 and 2 have the same device \(NVIDIA H100.*--gpus-per-task=1\)$"):
        Ranks(Launched(0, 3, 0, 3, "node-0"), store, 5.0, cuda[0])


def test_ranks_on_devices_of_different_types_are_refused(monkeypatch):
    stand_in(monkeypatch, H100)
    store = dist.HashStore()
    world_module._compare(store, Launched(1, 2, 1, 2, "node-1"), torch.device("cpu"))
    with pytest.raises(UserError, match=r"^rank 0 computes on cuda and rank 1 on cpu: .* or set device=cpu$"):
        Ranks(Launched(0, 2, 0, 1, "node-0"), store, 5.0, torch.device("cuda", 0))


@pytest.mark.slow
def test_the_time_limit_also_holds_for_groups_that_libraries_make():
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [
        subprocess.Popen([sys.executable, "-c", LATE], env=environment(RANK=str(rank), **shared), **pipes)
        for rank in range(2)
    ]
    try:
        said, errors = ranks[1].communicate(timeout=60)
        assert said.startswith("waiting\n"), errors
        assert "1000ms" in said or "timed out" in said.lower(), said
        _, errors = ranks[0].communicate(timeout=60)
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], errors

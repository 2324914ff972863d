"""What launchers say of a process: torchrun, DeepSpeed's, and srun alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launching import environment
from refinerl.engines.launched import Launched
from refinerl.errors import UserError

ADDRESS = {"MASTER_ADDR": "node-0", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"} | ADDRESS
BATCH_SCRIPT = {"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
SRUN = {
    **BATCH_SCRIPT,
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


def test_a_process_that_nobody_launched():
    assert Launched.read({}) is None
    assert Launched.read(BATCH_SCRIPT) is None  # its tasks are started by srun, not yet
    assert Launched.read({**BATCH_SCRIPT, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_torchrun_and_srun_say_the_same():
    assert Launched.read(TORCHRUN) == Launched.read(SRUN | ADDRESS) == Launched(9, 16, 1, 8, "node-0")


def test_torchrun_within_srun_speaks_for_its_ranks():
    assert Launched.read({**SRUN, **TORCHRUN}) == Launched.read(TORCHRUN)


def test_deepspeed_counts_the_ranks_of_a_machine_under_another_name():
    env = {name: value for name, value in TORCHRUN.items() if name != "LOCAL_WORLD_SIZE"}
    assert Launched.read({**env, "LOCAL_SIZE": "4"}) == Launched(9, 16, 1, 4, "node-0")


@pytest.mark.parametrize(("text", "node", "count"), [("8(x2)", 1, 8), ("8,4(x2)", 0, 8), ("8,4(x2)", 2, 4)])
def test_tasks_of_a_node_in_slurms_notation(text, node, count):
    found = Launched.read({**SRUN, **ADDRESS, "SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": str(node)})
    assert found is not None
    assert found.local_size == count


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_ADDR": None}, r"WORLD_SIZE=16 .* MASTER_ADDR and MASTER_PORT .* torchrun"),
        ({"MASTER_PORT": None}, r"MASTER_ADDR and MASTER_PORT"),
        ({"RANK": None}, r"WORLD_SIZE=16 .* RANK .* torchrun"),
        ({"WORLD_SIZE": None}, r"RANK=9 .* WORLD_SIZE does not say of how many: .* unset RANK to run one process"),
        ({"RANK": "16"}, r"RANK must be from 0 to 15, got 16"),
        ({"RANK": "first"}, r"RANK must be a whole number, got 'first'"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE must be a whole number, got 'two'"),
        ({"LOCAL_RANK": ""}, r"LOCAL_RANK must be a whole number, got ''"),
    ],
)
def test_facts_that_are_half_set_or_wrong(changed, message):
    """Alone, each such process would take itself for the whole run, in one folder."""
    env = {name: value for name, value in {**TORCHRUN, **ADDRESS, **changed}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        Launched.read(env)


def test_the_facts_of_a_single_process_need_no_address():
    assert Launched.read({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None
    assert Launched.read({"RANK": "0", "LOCAL_RANK": "0"}) is None


def test_srun_without_an_address():
    with pytest.raises(UserError, match=r"srun started 16 tasks, .* export MASTER_ADDR=.*MASTER_PORT=29500"):
        Launched.read(SRUN)


def test_the_command_says_so_once_and_at_once():
    """Before torch is imported, by the first task only."""
    command = [sys.executable, "-X", "importtime", "-m", "refinerl.train", "smollm"]
    said = []
    for task in ("0", "1"):
        env = environment(**{**SRUN, "SLURM_PROCID": task})
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert " torch\n" not in done.stderr
        said.append([line for line in done.stderr.splitlines() if not line.startswith("import time")])
    assert said[0][0].startswith("error: srun started 16 tasks")
    assert (len(said[0]), said[1]) == (1, [])

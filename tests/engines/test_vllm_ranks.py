"""vLLM under a launcher: the weights of ZeRO-3, engines that ranks share, and the ranks' group, which survives them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import leaks
from launching import launch, needs_deepspeed, needs_vllm
from tiny import write_tiny

SCRIPT = Path(__file__).parents[1] / "generating_ranks.py"


@pytest.fixture
def left_behind() -> Iterator[tuple[Callable[[str], None], set[Path]]]:
    """Leaves a file in the shared memory, as a killed run does; afterwards no other must exist that the ranks mapped.

    Gives the set of mapped files too. Other tests run beside this one, and have files of their own.
    """
    memory = Path("/dev/shm")
    mine: set[Path] = set()
    mapped: set[Path] = set()
    ended = threading.Event()

    def leave(name: str) -> None:
        mine.add(memory / name)
        (memory / name).touch()

    def look() -> None:
        while not ended.wait(0.1):
            mapped.update(leaks.shared_memory(leaks.descendants(os.getpid())))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield leave, mapped
    finally:
        ended.set()
        looking.join()
        for path in mine:
            path.unlink()
    assert not {path.name for path in mapped - mine if path.exists()}


@needs_deepspeed
@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize(("tied", "shared_by"), [(True, 2), (False, 1)])
def test_weights_in_pieces_reach_engines_of_one_rank_and_of_two(tmp_path, left_behind, tied, shared_by):
    """Greedy completions after training are those of transformers with the exported weights, on every rank.

    Neither does the shared memory of a run that was killed matter, nor is any left.
    """
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1, tied=tied)
    leave, mapped = left_behind
    for rank in range(2):
        leave(f"-tp:0-[0-1]-cpushm_{rank}")
    done = launch("torchrun", str(folder), str(tmp_path / "out"), str(shared_by), script=SCRIPT, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    # Both write to one pipe at once, so that their lines may run into each other.
    assert sorted(re.findall(r"rank \d is done", done.stdout)) == ["rank 0 is done", "rank 1 is done"]
    assert bool(mapped) == (shared_by == 2)

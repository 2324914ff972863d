"""vLLM under a launcher: the weights of ZeRO-3, engines that ranks share, and the ranks' group, which survives them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from launching import launch, needs_deepspeed
from tiny import write_tiny

SCRIPT = Path(__file__).parents[1] / "generating_ranks.py"


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (make setup says why)")
@pytest.mark.parametrize(("tied", "shared_by"), [(True, 2), (False, 1)])
def test_weights_in_pieces_reach_engines_of_one_rank_and_of_two(tmp_path, tied, shared_by):
    """Greedy completions after training are those of transformers with the exported weights, on every rank."""
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1, tied=tied)
    done = launch("torchrun", str(folder), str(tmp_path / "out"), str(shared_by), script=SCRIPT, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    # Both write to one pipe at once, so that their lines may run into each other.
    assert sorted(re.findall(r"rank \d is done", done.stdout)) == ["rank 0 is done", "rank 1 is done"]

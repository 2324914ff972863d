"""vLLM as a guest: an untested version is refused after its import, and what an engine leaves behind is cleaned up."""

from __future__ import annotations

from pathlib import Path

import pytest

from launching import launch, needs_vllm
from tiny import write_tiny
from toy import Toy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "engines_that_close.py"


@needs_vllm
def test_the_command_refuses_another_version_without_metadata(toy: Toy, tmp_path, capsys, monkeypatch):
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.34.1")
    assert toy.run(tmp_path / "run", "engines.generator=vllm") == 2
    assert "0.34.1 is installed: pip install 'vllm==0.32.0'" in capsys.readouterr().err


@needs_vllm
@pytest.mark.slow
def test_the_last_engine_takes_vllms_process_group_along_and_no_other(tmp_path):
    """Left to the end of the process it is a warning, and a leak of NCCL's memory before that."""
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1)
    done = launch(None, str(folder), script=SCRIPT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split("\n")[:-1] == [
        "two made: threads as before, precision high, a group",
        "one closed: a group",
        "both closed: no group",
        "made anew: a group, the same tokens",
        "closed: no group",
        "made in a group of ours and closed: a group",
    ]

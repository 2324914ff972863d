"""vLLM as a guest: another version than the tested one is refused, and what an engine leaves behind is put away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launching import launch, needs_vllm
from refinerl.engines.vllm.process import TESTED, check_version
from refinerl.errors import UserError
from tiny import write_tiny
from toy import Toy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "engines_that_close.py"


@pytest.mark.parametrize("version", [TESTED, "0.32.7", "0.32.0+cu130"])
def test_versions_of_the_tested_series_are_taken(version):
    check_version(version)


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.32.0", "0.3.2", "0.32", "0.33.0rc1.dev12+g1234"])
def test_another_version_is_refused_with_the_one_that_works(version):
    said = f"works with vLLM 0.32 (tested with {TESTED}), and {version} is installed: pip install 'vllm=={TESTED}'"
    with pytest.raises(UserError, match=re.escape(said)):
        check_version(version)


@needs_vllm
def test_the_command_refuses_another_version(toy: Toy, tmp_path, capsys, monkeypatch):
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.34.1")
    assert toy.run(tmp_path / "run", "engines.generator=vllm") == 2
    assert "0.34.1 is installed: pip install 'vllm==0.32.0'" in capsys.readouterr().err


def test_what_is_installed_is_of_the_tested_series():
    low, high = re.findall(r'"vllm>=([\d.]+),<([\d.]+);', (ROOT / "pyproject.toml").read_text())[0]
    check_version(f"{low}.0")
    with pytest.raises(UserError):
        check_version(f"{high}.0")


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

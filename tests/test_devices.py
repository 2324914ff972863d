"""Without `-m gpu` no test sees a GPU, nor does a process that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import devices
from launching import environment


@pytest.mark.parametrize(
    ("expression", "only"),
    [
        ("gpu", True),
        ("gpu and not slow", True),
        ("slow and gpu", True),
        ("(gpu)", True),
        ("", False),
        ("slow", False),
        ("not gpu", False),
        ("not (gpu)", False),
        ("not slow and not gpu", False),
        ("slow or gpu", False),
    ],
)
def test_expressions_that_select_only_what_is_marked(expression: str, only: bool) -> None:
    assert devices.only_gpu(expression) == only


def test_this_process_and_those_it_starts_see_no_gpu(request: pytest.FixtureRequest) -> None:
    if devices.only_gpu(request.config.option.markexpr):
        pytest.skip("these tests may see the GPU")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert environment()["DS_ACCELERATOR"] == "cpu"


@pytest.mark.parametrize("how", ["script", "module"])
def test_what_deepspeed_starts_sees_none_either(how: str, tmp_path: Path) -> None:
    """Its launcher numbers the GPUs for its ranks, whatever was hidden from itself."""
    (tmp_path / "prints.py").write_text(
        "import os, sys\nprint(os.environ['CUDA_VISIBLE_DEVICES'] == '', *sys.argv[1:])"
    )
    paths = os.pathsep.join([environment()["PYTHONPATH"], str(tmp_path)])
    name = {"script": str(tmp_path / "prints.py"), "module": "prints"}[how]
    command = [sys.executable, "-m", "hidden_gpu", "--local_rank=1", name, "a=b"]
    numbered = {**environment(PYTHONPATH=paths), "CUDA_VISIBLE_DEVICES": "0,1"}
    done = subprocess.run(command, capture_output=True, text=True, env=numbered, check=True)
    assert done.stdout.split() == ["True", "--local_rank=1", "a=b"]


@pytest.mark.parametrize(("version", "there"), [(None, True), ("0.32.0+cpu", True), ("0.32.0", False)])
def test_vllms_tests_want_its_build_for_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None, there: bool
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    if version is not None:
        (tmp_path / "vllm.dist-info").mkdir()
        (tmp_path / "vllm.dist-info" / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert devices.has_vllm_for_cpus() == there


@pytest.mark.gpu
def test_what_is_marked_sees_a_device() -> None:
    import torch

    assert torch.cuda.is_available()

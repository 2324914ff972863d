"""The CUDA kernels compiled for every architecture, and what they take of a device."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from emulation import CUDA

ARCHITECTURES = {80, 86, 89, 90, 100, 120}
MEASUREMENTS = CUDA.parent / "docs" / "measurements.md"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cuda_{name}", CUDA / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


compile, usage = load("compile"), load("usage")  # noqa: A001


def compiling(folder: Path, source: Path = CUDA, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", source / "compile.py", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compile.find_nvrtc() is None:
        pytest.skip("no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    folder = tmp_path_factory.mktemp("compiled")
    done = compiling(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_architecture_has_its_image(compiled: Path) -> None:
    for number in ARCHITECTURES:
        image = (compiled / f"sm_{number}.cubin").read_bytes()
        assert image.startswith(b"\x7fELF")
        # The architecture is in the ELF flags, in the lowest byte before ABI 8 and in the next one from there.
        flags = int.from_bytes(image[48:52], "little")
        assert (flags & 0xFF if image[8] < 8 else flags >> 8 & 0xFF) == number
    ptx = (compiled / "compute_120.ptx").read_bytes()
    assert b".target sm_120" in ptx
    assert ptx.endswith(b"\0")


@pytest.mark.slow
def test_no_kernel_spills_and_1024_threads_fit_a_multiprocessor(compiled: Path) -> None:
    report = (compiled / "usage.txt").read_text()
    assert "warning" not in report
    found = usage.read(report)
    types = ("float32", "float16", "bfloat16")
    names = {f"{kernel}_{kind}" for kernel in ("statistics", "fused", "fused_resident") for kind in types}
    names.add("kept_rows")
    assert {(entry.kernel, entry.architecture) for entry in found} == {(n, a) for n in names for a in ARCHITECTURES}
    for entry in found:
        assert (entry.spilled, entry.stack) == (0, 0), entry
        assert entry.shared <= 1024, entry
        # 1024 threads on a multiprocessor at least: its 65536 registers are given out by eights.
        assert -(-entry.registers // 8) * 8 * 1024 <= 65536, entry


@pytest.mark.slow
def test_the_measured_table_is_the_assembler_s(compiled: Path) -> None:
    table = usage.table(usage.read((compiled / "usage.txt").read_text()))
    assert table in MEASUREMENTS.read_text(encoding="utf-8")


def test_a_spill_would_be_seen() -> None:
    report = (
        "ptxas info    : Compiling entry function 'fused_float32' for 'sm_90'\n"
        "ptxas info    : Function properties for fused_float32\n"
        "ptxas         .     24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 32 registers, used 1 barriers, 24 bytes cumulative stack size, 384 bytes smem\n"
    )
    assert usage.read(report) == [usage.Usage("fused_float32", 90, registers=32, shared=384, stack=24, spilled=24)]


def test_without_nvrtc_the_status_says_so(tmp_path: Path) -> None:
    done = compiling(tmp_path, REFINERL_NVRTC=str(tmp_path / "nowhere.so"))
    assert done.returncode == compile.NO_COMPILER
    assert "no NVRTC 12" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_source_that_does_not_compile_fails_with_the_compiler_s_words(tmp_path: Path) -> None:
    if compile.find_nvrtc() is None:
        pytest.skip("no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    for name in ("compile.py", "device.cuh", "sequence_cross_entropy.cuh"):
        (tmp_path / name).write_text((CUDA / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "sequence_cross_entropy.cu").write_text(
        '#include "sequence_cross_entropy.cuh"\nint broken = missing;\n'
    )
    done = compiling(tmp_path, source=tmp_path)
    assert done.returncode == 1
    assert 'identifier "missing" is undefined' in done.stderr

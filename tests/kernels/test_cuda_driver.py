"""The CUDA epilogue through `refinerl._core` on a stand-in for the driver, `cuda/emulator/driver.cc`, which runs the
same kernels on host memory: arguments, launch shapes, images, and every failure.

A process opens the driver once, so each stand-in has a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from emulation import NAMES, Builder
from refinerl.kernels import cuda

core = pytest.importorskip("refinerl._core", reason="refinerl._core is not built")
pytestmark = pytest.mark.slow  # it compiles the stand-in
BUILT = pytest.mark.skipif(not core.cuda_architectures(), reason="built without the CUDA compiler")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Builder(tmp_path_factory.mktemp("emulator")).driver()


def run(code: str, driver: Path | None, **environment: str) -> str:
    """What a process prints that finds this driver, or none."""
    paths = [Path(__file__).parents[1], Path(cuda.__file__).parents[2]]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"} | environment
    variables["LD_LIBRARY_PATH"] = str(driver or "")
    script = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=variables, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


IMAGES = "sm_80, sm_86, sm_89, sm_90, sm_100, sm_120, compute_120"
NONE_FITS = f"no kernels for compute capability 7.5, only {IMAGES}"

ON_THE_HOST = """
    import pytest
    import torch
    from epilogues import cases, check
    from refinerl import _core
    from refinerl.kernels import cuda
    # A tensor on the host lacks only this: a device with a stream.
    cuda._place = lambda tensor: _core.CudaPlace(device=0, stream=77)
"""


@BUILT
@pytest.mark.slow
def test_every_case_through_the_launch_path(driver: Path, tmp_path: Path) -> None:
    code = (
        ON_THE_HOST
        + """
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for case in cases(dtype):
            if len(case.logits) <= 6:
                check(cuda.Epilogue(), case)
    weights = torch.rand(300).where(torch.rand(300) < 0.4, 0)
    indices, count = cuda.kept_rows(weights)
    assert torch.equal(indices[:int(count)], weights.nonzero().squeeze(-1))
    print("done")
    """
    )
    log = tmp_path / "launches"
    assert run(code, driver, STANDIN_LOG=str(log)) == "done"
    launches = [line.split() for line in log.read_text().splitlines()]
    assert {kernel for kernel, *_ in launches} == {
        *(f"{name}_{dtype}" for name in ("statistics", "fused_resident") for dtype in NAMES.values()),
        "kept_rows",
    }
    assert {stream for *_, stream in launches} == {"77"}
    for kernel, _, threads, shared in (launch[:4] for launch in launches):
        assert int(threads) == (1024 if kernel.startswith(("fused_resident", "kept_rows")) else 512)
        assert (int(shared) > 0) == kernel.startswith("fused_resident")


@BUILT
@pytest.mark.slow
def test_rows_are_read_twice_where_they_do_not_fit(driver: Path, tmp_path: Path) -> None:
    code = (
        ON_THE_HOST
        + """
    for case in cases(torch.float32):
        if case.logits.shape in ((5, 517), (5, 1042)):
            check(cuda.Epilogue(), case)
    """
    )
    log = tmp_path / "launches"
    run(code, driver, STANDIN_LOG=str(log), STANDIN_SHARED=str(2048 + 517 * 4 + 16))
    fused = [line.split()[:4] for line in log.read_text().splitlines() if line.startswith("fused")]
    fits, does_not = ["fused_resident_float32", "5", "1024", str(517 * 4 + 16)], ["fused_float32", "5", "512", "0"]
    assert fused == [fits] * 2 + [does_not] * 2  # without and with slopes of the entropy


@BUILT
@pytest.mark.slow
def test_between_the_matrix_products_it_gives_the_gradients_of_the_formula(driver: Path) -> None:
    code = (
        ON_THE_HOST
        + """
    from refinerl.kernels import chunked
    from refinerl.kernels.chunked import Layer, Slopes, Wanted
    chunked.WORKSPACE["cpu"] = 7 * 4 * 101  # three chunks of the kept rows
    hidden, head = torch.randn(30, 16), torch.randn(101, 16)
    targets, weights = torch.randint(0, 101, (30,)), torch.rand(30)
    weights[::3] = 0.0
    wide = [tensor.double().requires_grad_() for tensor in (hidden, head)]
    log_p = (1.25 * wide[0] @ wide[1].T).log_softmax(-1)
    logprob, spread = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    layer, wanted = Layer(hidden, head, None, 1.25), Wanted(True, True, False)

    def same(found, wanted):
        for mine, theirs in zip(found, wanted):
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)

    kept, every, epilogue = weights != 0, torch.ones(30, dtype=torch.bool), cuda.Epilogue()
    nll, entropy, found = chunked.cross_entropy(epilogue, layer, targets, kept, Slopes(weights, None), wanted)
    same([nll, entropy], [-logprob.detach() * kept, spread.detach() * kept])
    same(found[:2], torch.autograd.grad(-(weights * logprob).sum(), wide, retain_graph=True))
    nll, entropy, _ = chunked.cross_entropy(epilogue, layer, targets, every, None, Wanted(False, False, False))
    same([nll, entropy], [-logprob.detach(), spread.detach()])
    slopes = Slopes(weights, torch.full((30,), 0.5))
    *_, found = chunked.cross_entropy(epilogue, layer, targets, every, slopes, wanted)
    same(found[:2], torch.autograd.grad(-(weights * logprob).sum() + 0.5 * spread.sum(), wide))
    with pytest.raises(ValueError, match="targets must be in"):
        chunked.cross_entropy(epilogue, layer, targets + 100, every, None, wanted)
    print("done")
    """
    )
    assert run(code, driver) == "done"


PROBE = """
    from refinerl import _core
    try:
        print([(*device.capability, device.image, device.reason) for device in _core.cuda_devices()])
        _core.cuda_load(0)
        if {launch}:
            _core.cuda_kept_rows(_core.CudaPlace(device=0, stream=0), weights=0, rows=0, indices=0, count=0)
    except RuntimeError as error:
        print(error)
"""


@BUILT
@pytest.mark.parametrize(
    ("capability", "image"),
    [
        ("8.0", "sm_80"),
        ("8.7", "sm_86"),
        ("9.0", "sm_90"),
        ("10.3", "sm_100"),
        ("12.0", "sm_120"),
        ("13.0", "compute_120"),
    ],
)
@pytest.mark.slow
def test_the_image_for_each_device_is_one_that_loads_there(driver: Path, capability: str, image: str) -> None:
    major, minor = capability.split(".")
    printed = run(PROBE.format(launch=False), driver, STANDIN_CAPABILITY=capability)
    assert printed == f"[({major}, {minor}, '{image}', None)]"


@BUILT
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STANDIN_DEVICES": "0"}, ["the CUDA driver finds no device"]),
        ({"STANDIN_VERSION": "11080"}, ["CUDA 11.8", "driver 525 or newer"]),
        ({"STANDIN_CAPABILITY": "7.5"}, ["no kernels for compute capability 7.5", "sm_80", "compute_120"]),
        ({"STANDIN_CAPABILITY": "13.0", "STANDIN_VERSION": "12080"}, ["no kernels for compute capability 13.0"]),
        ({"STANDIN_FAULT": "cuInit:999"}, ["cuInit failed: CUDA error 999"]),
        ({"STANDIN_FAULT": "cuDevicePrimaryCtxRetain:201"}, ["cuDevicePrimaryCtxRetain", "CUDA_ERROR_INVALID_CONTEXT"]),
        ({"STANDIN_FAULT": "cuModuleLoadDataEx:218"}, ["cuModuleLoadDataEx of sm_86", "CUDA_ERROR_INVALID_PTX"]),
        (
            {"STANDIN_FAULT": "cuModuleGetFunction:500"},
            ["cuModuleGetFunction of statistics_float32", "CUDA_ERROR_NOT_FOUND"],
        ),
        ({"STANDIN_FAULT": "cuFuncSetAttribute:1"}, ["cuFuncSetAttribute of fused_resident_float32", "INVALID_VALUE"]),
        (
            {"STANDIN_FAULT": "cuLaunchKernel:700"},
            ["cuLaunchKernel of kept_rows (1 blocks of 1024 threads)", "CUDA_ERROR_ILLEGAL_ADDRESS", "status 700"],
        ),
    ],
)
def test_every_failure_names_its_cause(driver: Path, environment: dict[str, str], words: list[str]) -> None:
    printed = run(PROBE.format(launch=True), driver, **environment)
    assert all(word in printed for word in words), printed


@BUILT
def test_without_a_driver_the_reason_is_the_loader_s(tmp_path: Path) -> None:
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("there is a driver")
    printed = run(PROBE.format(launch=False), None)
    assert printed.startswith("no CUDA driver library")
    assert "libcuda.so.1" in printed


@BUILT
@pytest.mark.slow
def test_a_library_that_is_no_driver_is_refused(tmp_path: Path) -> None:
    builder = Builder(tmp_path)
    (tmp_path / "fake").mkdir()
    builder._run("-shared", builder.unit("emulator"), "-o", tmp_path / "fake" / "libcuda.so.1")
    assert "cuInit" in run(PROBE.format(launch=False), tmp_path / "fake")


@BUILT
@pytest.mark.slow
def test_availability_and_the_reason_of_a_device_without_kernels(driver: Path) -> None:
    code = """
    from refinerl.kernels import cuda
    found = cuda.availability()
    print(found.usable, len(found.architectures), found.reason)
    print([cuda.why_not(index) for index in (0, 1)])
    print(cuda.why_not(2))
    """
    lines = run(code, driver, STANDIN_CAPABILITY="7.5", STANDIN_DEVICES="2").splitlines()
    assert lines == [f"False 7 {NONE_FITS}", str([NONE_FITS, NONE_FITS]), "there is no CUDA device 2"]
    lines = run(code, driver, STANDIN_DEVICES="2").splitlines()
    assert lines == ["True 7 ", "['', '']", "there is no CUDA device 2"]


@BUILT
@pytest.mark.slow
def test_the_door_falls_back_with_one_warning_on_a_device_without_kernels(driver: Path) -> None:
    """The door's choice for tensors of that device: what runs then is the twin."""
    code = """
    import warnings
    import torch
    from refinerl.kernels import cross_entropy
    device = torch.device("cuda", 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print([cross_entropy._choose("auto", device, torch.bfloat16) for _ in range(3)])
    print(len(caught), *(warning.message for warning in caught))
    try:
        print(cross_entropy._choose("cuda", device, torch.bfloat16))
    except ValueError as error:
        print(error)
    """
    lines = run(code, driver, STANDIN_CAPABILITY="7.5", STANDIN_DEVICES="2").splitlines()
    assert lines[0] == "['torch', 'torch', 'torch']"
    assert lines[1] == f"1 cross-entropy runs without its cuda kernels: {NONE_FITS}"
    assert lines[2] == f"impl must be one that can run here, got 'cuda': {NONE_FITS}"
    lines = run(code, driver, STANDIN_DEVICES="2").splitlines()
    assert lines == ["['cuda', 'cuda', 'cuda']", "0", "cuda"]

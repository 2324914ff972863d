"""The CUDA kernels' own source, run on the host by the emulator of `cuda/emulator/`.

Not covered, as the emulator does not model it: the device's memory ordering within a warp, bank conflicts, its
rounding of exp2 and log (here the host's), and speed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from emulation import CUDA, SANITIZERS, Builder, EmulatedEpilogue, Emulator
from epilogues import cases, check

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(Builder(tmp_path_factory.mktemp("emulator")).emulator())


@pytest.mark.parametrize("resident", [False, True], ids=["read twice", "resident"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.slow
def test_every_case_within_the_rule_of_accuracy(emulator: Emulator, dtype: torch.dtype, resident: bool) -> None:
    for seed, case in enumerate(cases(dtype)):
        check(
            EmulatedEpilogue(emulator, threads=32 if len(case.logits) > 100 else 64, resident=resident, seed=seed), case
        )


@pytest.mark.parametrize("threads", [512, 1024])
@pytest.mark.slow
def test_the_block_sizes_that_launches_use(emulator: Emulator, threads: int) -> None:
    for dtype in DTYPES:
        case = next(case for case in cases(dtype) if case.name == "5 rows of 4099")
        check(EmulatedEpilogue(emulator, threads=threads, resident=threads == 1024), case)


def test_targets_outside_the_vocabulary_give_nan_and_ignored_rows_zero(emulator: Emulator) -> None:
    epilogue = EmulatedEpilogue(emulator)
    logits, targets = torch.randn(4, 50), torch.tensor([50, -1, -100, 3])
    nll, entropy = epilogue.statistics(logits, targets, 1.0)
    assert nll.isnan().tolist() == entropy.isnan().tolist() == [True, True, False, False]
    assert (nll[2], entropy[2]) == (0, 0)
    epilogue.fused(logits, targets, torch.ones(4), torch.ones(4), 1.0)
    assert logits.isnan().all(1).tolist() == [True, True, False, False]
    assert not logits[2].any()
    logits = torch.full((1, 50), torch.nan)
    epilogue.fused(logits, torch.tensor([-100]), torch.ones(1), None, 1.0)
    assert not logits.any()


def test_rows_without_a_finite_logit_and_with_nan_are_nan(emulator: Emulator) -> None:
    logits = torch.randn(2, 600)
    logits[0], logits[1, 77] = -torch.inf, torch.nan
    nll, entropy = EmulatedEpilogue(emulator).fused(logits, torch.tensor([3, 4]), torch.ones(2), None, 1.0)
    assert nll.isnan().all()
    assert entropy.isnan().all()
    assert logits.isnan().any(1).all()


@pytest.mark.parametrize("rows", [0, 1, 31, 64, 1000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_kept_rows(emulator: Emulator, rows: int, share: float) -> None:
    noise = torch.Generator().manual_seed(rows)
    weights = (torch.rand(rows, generator=noise) < share).float() * -0.5
    indices, count = torch.full((max(rows, 1),), -7), torch.tensor([-7])
    emulator.launch("kept_rows", 1, 128, weights, rows, indices, count, seed=rows)
    kept = weights.nonzero().squeeze(-1)
    assert count.item() == len(kept)
    assert torch.equal(indices[: len(kept)], kept)


# --- the sanitizers, and that they and the emulator find what is planted ---------------------------------------------


def run(program: Path, seed: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}

    def start(*before: str) -> subprocess.CompletedProcess[str]:
        command = [*before, program, str(seed)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)

    done = start()
    # ThreadSanitizer of older compilers cannot place its shadow where addresses are much randomised.
    if "unexpected memory mapping" in done.stderr and (setarch := shutil.which("setarch")):
        done = start(setarch, "-R")
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this ThreadSanitizer does not run under this kernel's address randomisation")
    return done


def plant(folder: Path, old: str, new: str) -> Path:
    """A copy of the sources in which the first of the places that read `old` reads `new`."""
    copy = Path(shutil.copytree(CUDA, folder / "cuda", ignore=shutil.ignore_patterns("__pycache__")))
    header = copy / "sequence_cross_entropy.cuh"
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new, 1), encoding="utf-8")
    return copy


BARRIER = ("    __syncthreads();\n    Sums all;", "    Sums all;")
BOUND = ("index < layout.length; index += threads) single", "index <= layout.length; index += threads) single")


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Builder]:
    folder = tmp_path_factory.mktemp("checks")
    return {sanitizer: Builder(folder / sanitizer, sanitizer) for sanitizer in SANITIZERS}


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_sanitizers_find_nothing(builders: dict[str, Builder], sanitizer: str) -> None:
    done = run(builders[sanitizer].program())
    assert (done.returncode, done.stdout) == (0, "0 wrong\n"), done.stderr


@pytest.mark.slow
def test_a_removed_barrier_is_found_by_its_results_under_every_seed(
    builders: dict[str, Builder], tmp_path: Path
) -> None:
    program = builders["none"].program(plant(tmp_path, *BARRIER))
    for seed in (0, 1000, 2000):
        done = run(program, seed)
        assert done.returncode == 1, done.stdout


@pytest.mark.slow
def test_a_removed_barrier_is_found_by_the_race_detector(builders: dict[str, Builder], tmp_path: Path) -> None:
    done = run(builders["thread"].program(plant(tmp_path, *BARRIER)))
    assert done.returncode != 0
    assert "data race" in done.stderr
    assert "join_block" in done.stderr


@pytest.mark.slow
def test_an_index_out_of_bounds_is_found(builders: dict[str, Builder], tmp_path: Path) -> None:
    done = run(builders["address"].program(plant(tmp_path, *BOUND)))
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.slow
def test_a_barrier_that_some_threads_leave_out_is_found(builders: dict[str, Builder], tmp_path: Path) -> None:
    done = run(builders["none"].program(plant(tmp_path, BARRIER[0], f"    if (warp == 0) {BARRIER[0].lstrip()}")))
    assert done.returncode != 0
    assert "other threads left out" in done.stderr

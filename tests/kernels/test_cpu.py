"""The CPU's epilogue at every level of SIMD that this processor has, over the cases that every epilogue must pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from epilogues import cases, check
from refinerl.kernels import available, cpu

FEATURES = {"portable": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f"}}


@pytest.fixture(params=FEATURES)
def level(request: pytest.FixtureRequest) -> str:
    if request.param not in cpu.LEVELS:
        pytest.skip(f"this processor lacks {request.param}")
    return str(request.param)


def test_every_case_within_the_rule_of_accuracy(level: str) -> None:
    for case in cases(torch.float32):
        # The products before it pack rows: they are contiguous, and ignored ones are left out.
        check(cpu.Epilogue(level), replace(case, logits=case.logits.contiguous(), targets=case.targets.clamp_min(0)))


def test_the_levels_are_those_of_the_processor() -> None:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        pytest.skip("this system does not tell its processor's features")
    assert list(cpu.LEVELS) == [level for level, features in FEATURES.items() if features <= words]
    assert available()["cpu"].architectures == cpu.LEVELS


def test_a_level_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"level must be one of \[\"portable\".*\], got avx1024"):
        cpu.Epilogue("avx1024").statistics(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), 1.0)

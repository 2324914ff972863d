"""A run of the study `miniature` lands in the band that its five seeds left in docs/bands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launching import environment

BAND = Path(__file__).parents[2] / "docs" / "bands" / "miniature.yaml"


@pytest.mark.slow
def test_the_dynamic_arm_learns_as_much_as_its_band_says(tmp_path: Path) -> None:
    """A seed that the study does not have, at the β that its tuning chose: a run of 80 steps, about two minutes."""
    words = ["miniature", "--arms", "dynamic", "--seeds", "7", "--output-dir", tmp_path / "out", "--check", BAND]
    done = subprocess.run(
        [sys.executable, "-m", "refinerl.study", *map(os.fspath, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if " dynamic " in line and "expected" in line]
    assert len(lines) >= 12
    assert all(line.startswith("inside ") for line in lines)
    dynamic = json.loads((tmp_path / "out" / "table.json").read_text())["arms"]["dynamic"]["measures"]
    assert dynamic["held_out_end"]["mean"] >= 0.7 > 0.3 > dynamic["held_out_start"]["mean"]

"""The record of a folder whose runs go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinerl.errors import UserError
from refinerl.study.record import continued
from studying import record


def test_a_band_of_another_point_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    grids = {"none": {"constraint.beta": [0.03, 0.1]}}
    tuned, new = record(grids=grids, chosen={"none": {"constraint.beta": 0.03}}), record(grids=grids)
    assert continued(tuned, new, tmp_path).chosen == {"none": {"constraint.beta": 0.03}}
    assert continued(tuned, tuned, tmp_path).chosen == {"none": {"constraint.beta": 0.03}}
    said = "arm 'none' has runs in .* with constraint.beta=0.03, the band was measured with constraint.beta=0.1: choose"
    with pytest.raises(UserError, match=said):
        continued(tuned, record(grids=grids, chosen={"none": {"constraint.beta": 0.1}}), tmp_path)

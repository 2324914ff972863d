"""The simulation of many GPUs, small; and the tables that docs/scaling.md quotes from it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale() -> Any:
    spec = importlib.util.spec_from_file_location("benches_scale", ROOT / "benches" / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_more_gpus_wait_more_and_work_the_same(scale):
    machine, lengths = scale.MACHINES[1], scale.LENGTHS[0]
    few, many = (scale.seconds(machine, lengths, gpus, steps=8) for gpus in (8, 64))
    assert many["wait"] > few["wait"] > 0
    assert many["update"] == pytest.approx(few["update"], rel=0.1)
    assert few["ZeRO-3"] == few["ZeRO-2"] == 0  # one machine: no network
    assert many["ZeRO-3"] > many["ZeRO-2"] > 0
    assert scale.seconds(machine, lengths, 8, steps=8) == few


def test_where_all_rows_are_alike_nobody_waits(scale):
    """By hand: 16 rows of 100 tokens after 512, on weights of 6.4 GB."""
    found = scale.seconds(scale.MACHINES[0], scale.Lengths("alike", 100, 0.0, 1024), 8, steps=1)
    assert found["wait"] == 0
    caches = 16 * 4 * 28 * 1024 * (100 * 512 + 100**2 / 2)
    assert found["generate"] == pytest.approx((100 * 2 * 3_212_749_824 + caches) / (0.6 * 768e9))
    assert found["hand-over"] == pytest.approx(2 * 3_212_749_824 / 25e9)


def test_lengths_have_a_tail_and_groups_are_alike(scale):
    drawn = scale.Lengths("long", 1000, 1.0, 10_000).draw(200, 16, np.random.default_rng(0))
    assert drawn.shape == (200, 16)
    assert drawn.max() == 10_000
    assert np.median(drawn) == pytest.approx(1000, rel=0.1)
    logs = np.log(drawn.reshape(-1, 8))
    assert logs.mean(1).var() > 0.4 * logs.var()


def test_the_document_quotes_it(scale):
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in "\n".join(scale.tables()).split("\n\n"):
        assert table in text

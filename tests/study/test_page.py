"""The page and the figures: text is escaped, nothing is loaded from elsewhere, bands are the range over seeds."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from refinerl.study import figures, page
from refinerl.study.results import Result
from refinerl.study.table import Table
from studying import record


def run(folder: Path, arm: str, seed: int) -> Result:
    rows = [{"step": 0, "evaluate/pass@1": 0.1}]
    rows += [{"step": step, "reward/mean": float(seed), "evaluate/pass@1": 0.1 * step} for step in (1, 2, 3)]
    return Result(arm, seed, folder / arm / f"seed-{seed}", rows, {"reward_end": float(seed)})


def test_a_page_of_hostile_text(tmp_path: Path) -> None:
    arms = {"a & b": {}, "$x": {}}
    known = record(arms=arms, title="<script>alert(1)</script>", compare=(("a & b", "$x"),))
    results = [run(tmp_path, arm, seed) for arm in arms for seed in (0, 1)]
    for result in results:
        result.folder.mkdir(parents=True)
        (result.folder / "report.html").touch()
    drawn = figures.draw(results, tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("held-out", "figure-4-reward") for suffix in ("svg", "png")
    }
    table = Table.of(known, results, {})
    html = page.write_page(tmp_path, table, results, drawn, "about <b>").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "about &lt;b&gt;" in html
    assert 'href="a%20%26%20b/seed-0/report.html">a &amp; b seed 0</a>' in html
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    (first, _) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    assert base64.b64decode(first).decode().startswith("<?xml")
    assert '<td class="too few seeds">too few seeds</td>' in html


def test_curves_are_means_and_ranges_at_common_steps(tmp_path: Path) -> None:
    results = [run(tmp_path, "a", seed) for seed in (0, 3)]
    results[1] = Result("a", 3, results[1].folder, results[1].rows[:-1], {})
    (band,) = figures.bands(results, "reward/mean").values()
    assert (band.steps, band.means, band.lows, band.highs, band.seeds) == (
        [1, 2],
        [1.5, 1.5],
        [0.0, 0.0],
        [3.0, 3.0],
        2,
    )
    assert figures.bands(results, "")["a"].steps == [0, 1, 2]
    assert figures.bands(results, "constraint/ce") == {}


def test_training_curves_are_smoothed(tmp_path: Path) -> None:
    rows = [{"step": step, "reward/mean": float(step)} for step in range(1, 11)]
    points = figures.curve(Result("a", 0, tmp_path, rows, {}), "reward/mean")
    assert points[0] == (1, 1.0)
    assert points[-1] == (10, pytest.approx(7.0))

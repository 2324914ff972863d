"""The page of a study: text is escaped, nothing is loaded from elsewhere, the figures are in it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from refinerl.report.figures import drawing
from refinerl.report.figures.folders import Found
from refinerl.report.figures.series import Drawn, Series
from refinerl.study import page
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
    series = (Series(arm, tuple(Drawn(r.folder, r.rows) for r in results if r.arm == arm)) for arm in arms)
    drawn = drawing.draw(Found(tuple(series)), tmp_path / "figures").drawings
    assert list(drawn) == ["Held-out success", "Reward, divergence and constraint (the paper's figure 4)"]
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

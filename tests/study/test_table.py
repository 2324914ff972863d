"""The table: means, standard errors, paired differences, verdicts; blanks where nothing was measured."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from refinerl.study import text
from refinerl.study.results import Point, best
from refinerl.study.table import BLOCKS, Difference, Table
from studying import record, result


@pytest.fixture
def table() -> Table:
    results = [result("none", seed, held_out_end=0.1 * seed, collapsed=float(seed > 0)) for seed in (0, 1, 2)]
    results += [result("dynamic", seed, held_out_end=0.5 + 0.1 * seed, ce_last=0.1) for seed in (1, 2)]
    results[3].measures["ce_last"] = 0.2  # type: ignore[index]
    del results[4].measures["ce_last"]  # type: ignore[attr-defined]
    return Table.of(record(), results, {})


def test_cells(table: Table) -> None:
    assert table.text("none", "held_out_end") == "0.10 ± 0.06"  # 0.1 / √3
    assert table.text("dynamic", "held_out_end") == "0.65 ± 0.05"
    assert table.text("none", "collapsed") == "2 of 3"
    assert table.text("none", "ce_last") == ""
    assert table.text("dynamic", "collapsed") == ""
    assert table.text("dynamic", "ce_last") == "0.20 (1)"
    assert table.missing == ["dynamic seed 0"]
    assert "Not finished: dynamic seed 0." in table.notes()


def test_differences_are_paired_by_seed(table: Table) -> None:
    (difference,) = table.differences
    assert difference.values == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}
    assert difference.verdict == "too few seeds"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, 0.2, 0.3], "yes"),
        ([-0.1, -0.2, -0.3], "no"),
        ([-0.1, 0.2, 0.3], "unclear"),
        ([0.0, 0.0, 0.0], "unclear"),
        ([0.5, 0.5], "too few seeds"),
        ([0.5], "too few seeds"),
    ],
)
def test_verdicts(values: list[float], verdict: str) -> None:
    difference = Difference("a", "b", "held_out_end", dict(enumerate(values)))
    assert difference.verdict == verdict
    assert difference.sentence.startswith("a − b, held-out success at the end: ")
    assert difference.sentence.endswith(f"higher? {verdict}")


def test_the_text_fits_eighty_columns_and_has_no_column_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    measures = dict.fromkeys((name for block in BLOCKS.values() for name in block if not name.startswith("kl")), -0.123)
    results = [result(arm, seed, **measures) for arm in ("none", "dynamic, no filter") for seed in (0, 1)]
    results += [result("none", 2, **{**measures, "held_out_end": -0.5})]
    table = Table.of(record(arms={"none": {}, "dynamic, no filter": {}}, compare=()), results, {})
    text.show(table, Console(width=80))
    drawn = capsys.readouterr().out
    assert "-0.25±0.13" in drawn
    assert "KL" not in drawn
    assert "…" not in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    assert "| none | -0.12 ± 0 | -0.12 ± 0 | -0.12 ± 0 | -0.12 ± 0 | -0.25 ± 0.13 |" in text.markdown(table)


def test_json_has_the_values_of_each_seed(table: Table) -> None:
    found = json.loads(json.dumps(table.as_json()))
    cell = found["arms"]["none"]["measures"]["held_out_end"]
    assert (cell["n"], cell["values"], cell["mean"]) == (3, {"0": 0.0, "1": 0.1, "2": 0.2}, pytest.approx(0.1))
    assert found["compare"][0]["verdict"] == "too few seeds"


def points(*means: float | None) -> list[Point]:
    made = []
    for number, mean in enumerate(means):
        results = () if mean is None else (result("a", 100, reward_end=mean), result("a", 101, reward_end=mean))
        made.append(Point(f"beta={number}", {"beta": number}, results, 2))
    return made


def test_the_best_point() -> None:
    assert best(points(0.1, 0.3, 0.3), "reward_end").name == "beta=1"  # type: ignore[union-attr]
    assert best(points(0.1, None), "reward_end") is None
    assert best(points(0.1), "held_out_end") is None


def test_budgets_are_compared() -> None:
    tuned = record(tuning={"measure": "reward_end", "seeds": [100, 101]}, chosen={"none": {"beta": 1}})
    grids = {"none": points(0.1, 0.2), "dynamic": points(0.1, 0.3)}
    table = Table.of(tuned, [], grids)
    assert "none runs with beta=1, the best of 2 by reward_end." in table.notes()
    assert "Every arm had 4 tuning runs." in table.notes()
    assert table.grids()[1] == ("none", "beta=1", "0.20", True)
    uneven = Table.of(tuned, [], grids | {"dynamic": points(0.1)})
    assert "The arms had different numbers of tuning runs: none 4, dynamic 2." in uneven.notes()

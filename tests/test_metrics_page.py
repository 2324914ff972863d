"""docs/metrics.md lists every metric that a run writes, and no other."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from refinerl import train
from refinerl.alignment import filter_refinements
from toy import Toy, metrics, write_problems

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "metrics.md"
WRITERS = ("algorithms", "benchmarks", "constraints", "engines", "loop", "run", "tasks")
FAMILIES = "reward|policy|critic|constraint|refiner|completion|rollout|evaluate|sandbox|time|tokens|memory|update|math"
METRIC = re.compile(rf"(?:{FAMILIES}|reward_model)/[a-z][\w@]*")


def listed() -> list[str]:
    """The names of the table, in its order."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [line.split("|")[1] for line in lines if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


NAMES = set(listed())
PLACEHOLDERS = {
    "reward/NAME": "reward/[a-z_]+",
    "logged/NAME": "logged/.+",
    "constraint/NAME/…": "constraint/[a-z]+/(beta|cost|ce)",
    "evaluate/reward/NAME": "evaluate/reward/[a-z_]+",
    "evaluate/…_low": r"evaluate/(reward|(base_)?pass@1)_low",
    "evaluate/…_high": r"evaluate/(reward|(base_)?pass@1)_high",
    "time/PHASE_share": "time/(generate|score|refine|update|sync|evaluate)_share",
    "peer/…": None,
    "fresh/…": None,
}


def entry(metric: str) -> str | None:
    """The table's row of a metric."""
    for family in ("peer", "fresh"):
        if metric.startswith(f"{family}/"):
            return f"{family}/…" if f"refiner/{metric.removeprefix(f'{family}/')}" in NAMES else None
    if metric in NAMES:
        return metric
    return next((name for name, form in PLACEHOLDERS.items() if form and re.fullmatch(form, metric)), None)


def test_no_metric_is_listed_twice_and_each_has_a_range():
    names = listed()
    assert sorted(names) == sorted(set(names))
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 and all(c.strip() for c in row.split("|")[1:4]) for row in rows)


def named_in_the_source() -> set[str]:
    found = set()
    for package in WRITERS:
        for path in (ROOT / "python" / "refinerl" / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
                    found.add(node.value)
    return found


def test_every_name_in_the_source_is_listed():
    names = named_in_the_source()
    assert len(names) > 40
    assert [name for name in sorted(names) if entry(name) is None] == []


# What a run of the toy cannot have: a device, a server, and what the filter counts under accept=perfect.
ELSEWHERE = {
    "memory/device_peak",
    "evaluate/base_pass@1",
    "reward_model/truncated",
    "reward/NAME",
    "logged/NAME",
    "evaluate/reward/NAME",
    "math/timeouts",
    "math/crashes",
}


def test_every_metric_of_runs_is_listed_and_every_listed_one_is_written(toy: Toy, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "cab", "pattern": ".*"}) + "\n" + '{"prompt": "b", "pattern": "z"}\n')
    trained = tmp_path / "trained.jsonl"
    trained.write_text(rows.read_text())
    held_out = ["evaluate.every=1", f"evaluate.path={rows}"]
    runs = [
        ["trainer.minibatch=4"],
        [
            "algorithm.name=ppo",
            "algorithm.samples_per_prompt=2",
            "refiner.probe=true",
            "constraint.name=peer",
            "telemetry.kl_every=2",
        ],
        ["constraint.name=fresh", "refiner.probe=true"],
        ["constraints=[{name: dynamic, beta: 0.1}, {name: static, beta: 0.1}]"],
        [f"task.path={trained}", "task.reward=rule:matches", "algorithm.dynamic_sampling=false", *held_out],
    ]
    seen: set[str] = set()
    for number, words in enumerate(runs):
        assert toy.run(tmp_path / str(number), "trainer.steps=1", *words) == 0
        seen |= metrics(tmp_path / str(number))[-1].keys()
    problems = write_problems(tmp_path)
    code = ["smollm", f"model={toy.folder / 'model'}", f"task.path={problems}", "trainer.steps=1", "trainer.batch=8"]
    code += ["generation.max_tokens=2", "refiner.temperature=1", "algorithm.dynamic_sampling=false"]
    assert train.main([*code, "--output-dir", str(tmp_path / "code")]) == 0
    seen |= metrics(tmp_path / "code")[-1].keys()
    seen -= {"schema", "step"}
    assert {name for name in seen if entry(name) is None} == set()
    written = {entry(name) for name in seen} | ELSEWHERE
    assert sorted(NAMES - written) == []
    assert named_in_the_source() & ELSEWHERE == ELSEWHERE - {"reward/NAME", "logged/NAME", "evaluate/reward/NAME"}


def test_the_filter_counts_what_is_listed():
    counts = filter_refinements([0.0], [1.0], ["a"], [[1]]).counts
    assert {f"refiner/{name}" for name in counts if name != "accepted"} <= NAMES


@pytest.mark.parametrize("name", ["equations.md", "evaluation.md"])
def test_other_pages_point_to_it(name):
    assert "metrics.md" in (ROOT / "docs" / name).read_text(encoding="utf-8")

"""The results of an evaluation: results.jsonl, summary.json, failures.html, and a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from refinerl.benchmarks import failures
from refinerl.benchmarks.estimate import Estimate, estimate
from refinerl.benchmarks.suite import Failure, Result, Sample, Suite
from refinerl.data import files
from refinerl.errors import UserError

SCHEMA = 1
Tests = Literal["base", "all"]


def passed_counts(results: Sequence[Result], tests: Tests) -> list[tuple[int, int]]:
    """Count (samples, passed) of each task, by the base tests or by all tests."""
    samples: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for result in results:
        samples[result.sample.task_id] += 1
        passed[result.sample.task_id] += result.base if tests == "base" else result.passed
    return [(count, passed[name]) for name, count in samples.items()]


def estimates(results: Sequence[Result], ks: Sequence[int]) -> dict[str, dict[int, Estimate]]:
    """Estimate pass@k by the base tests and, if there are extended tests, by both together (`plus`)."""
    fewest = min(samples for samples, _ in passed_counts(results, "base"))
    possible = [k for k in ks if k <= fewest]
    found = {"base": {k: estimate(passed_counts(results, "base"), k) for k in possible}}
    if any(result.plus is not None for result in results):
        found["plus"] = {k: estimate(passed_counts(results, "all"), k) for k in possible}
    return found


def check_ks(ks: Sequence[int], fewest: int) -> None:
    """Check that pass@k can be estimated.

    Raises:
        UserError: some task has fewer than k samples.
    """
    for k in ks:
        if k > fewest:
            raise UserError(f"--k {k} needs at least {k} samples of every task, and one task has {fewest}")


def summarize(suite: Suite, results: Sequence[Result], ks: Sequence[int], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make the content of summary.json; `facts` are added to it."""
    return {
        "schema": SCHEMA,
        "benchmark": suite.name,
        "tasks": len(suite.used),
        "tasks_in_benchmark": len(suite.tasks),
        "samples": len(results),
        "pass@k": {
            tests: {str(k): asdict(value) for k, value in by_k.items()}
            for tests, by_k in estimates(results, ks).items()
        },
        "interval": "95 %, Wilson over the tasks",
        "outcomes": dict(Counter(result.outcome for result in results)),
        "files": dict(suite.files),
        "notes": list(suite.notes),
        **facts,
    }


def write(folder: Path, suite: Suite, results: Sequence[Result], summary: Mapping[str, Any]) -> None:
    """Write results.jsonl, failures.html and, last, summary.json, each whole or not at all.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "results.jsonl", (json.dumps(row(r), ensure_ascii=False) + "\n" for r in results))
        files.write(folder / "failures.html", failures.page(suite, results, _title(summary), list(_cells(summary))))
        files.write(folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


def row(result: Result) -> dict[str, Any]:
    """Make a row of results.jsonl; `plus` is the verdict of the extended tests alone, None if there are none."""
    sample = result.sample
    return {
        "schema": SCHEMA,
        "task_id": sample.task_id,
        "sample": sample.number,
        "base": _word(result.base),
        "plus": None if result.plus is None else _word(result.plus),
        "outcome": result.outcome,
        "failure": None if result.failure is None else asdict(result.failure),
        "solution": sample.program,
        **({} if sample.completion is None else {"completion": sample.completion}),
    }


def result_of(where: str, row: Mapping[str, Any]) -> Result:
    """Read a row of results.jsonl; `where` names it in messages.

    Raises:
        UserError: another version of refinerl wrote it, or a field is missing.
    """
    if row.get("schema") != SCHEMA:
        raise UserError(f"{where} has schema {row.get('schema')}, and this version of refinerl reads {SCHEMA}")
    try:
        sample = Sample(row["task_id"], row["sample"], row["solution"], row.get("completion"))
        plus = None if row["plus"] is None else row["plus"] == "pass"
        failure = None if row["failure"] is None else Failure(**row["failure"])
        return Result(sample, row["base"] == "pass", plus, row["outcome"], failure)
    except (KeyError, TypeError) as error:
        raise UserError(f"{where} is not a row of results.jsonl: {error}") from error


def _word(passed: bool) -> str:
    return "pass" if passed else "fail"


def table(summary: Mapping[str, Any]) -> Table:
    """Make the table of pass@k with its interval, one row for each set of tests and each k."""
    shown = Table(title=_title(summary), title_justify="left")
    for name, justify in (("tests", "left"), ("k", "right"), ("pass@k", "right"), ("95 % interval", "right")):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for cells in _cells(summary):
        shown.add_row(*cells)
    return shown


def _cells(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for tests, by_k in summary["pass@k"].items():
        name = "base + extended" if tests == "plus" else "base"
        for k, value in by_k.items():
            yield name, k, f"{value['value']:.1%}", f"{value['low']:.1%} – {value['high']:.1%}"


def _title(summary: Mapping[str, Any]) -> str:
    parts = [summary["benchmark"], f"{summary['tasks']} tasks", f"{summary['samples']} samples"]
    if summary.get("prompting"):
        parts.append(f"prompting {summary['prompting']['name']}")
    return ", ".join(parts)

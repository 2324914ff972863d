"""The results of an unfinished evaluation on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refinerl.benchmarks.journal import PARTIAL, Journal
from refinerl.benchmarks.suite import Failure, Result, Sample
from refinerl.errors import UserError

RESULTS = [
    Result(
        Sample("a", 0, "print(1)", "text \udc80\u2028"), True, False, "wrong_answer", Failure("plus", 3, "i", "e", "g")
    ),
    Result(Sample("b", 0, None), False, None, "no_room"),
]
SETTINGS = {"model": "m", "temperature": 0.5, "stops": ("a",)}


def test_results_come_back_as_they_were(tmp_path: Path):
    journal = Journal(tmp_path / "out")
    assert journal.settings() is None
    assert journal.begin(SETTINGS) == []
    journal.keep(RESULTS[:1])
    journal.keep(RESULTS[1:])
    Journal(tmp_path / "out", rank=1).keep([])
    assert Journal(tmp_path / "out").begin(SETTINGS) == RESULTS
    assert "the same command goes on" in journal.standing()


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path):
    Journal(tmp_path).begin(SETTINGS)
    Journal(tmp_path).keep(RESULTS)
    (path,) = (tmp_path / PARTIAL).glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    assert Journal(tmp_path).begin(SETTINGS) == RESULTS[:1]


def test_another_start_has_a_file_of_its_own(tmp_path: Path):
    """A file that ends in half a line is never appended to."""
    for result in RESULTS:
        journal = Journal(tmp_path)
        journal.begin(SETTINGS)
        journal.keep([result])
    assert Journal(tmp_path).begin(SETTINGS) == RESULTS


def test_one_that_failed_before_its_first_sample_begins_anew(tmp_path: Path):
    Journal(tmp_path).begin(SETTINGS)
    other = SETTINGS | {"model": "one that exists"}
    assert Journal(tmp_path).begin(other) == []
    settings = Journal(tmp_path).settings()
    assert settings is not None
    assert settings["model"] == "one that exists"


def test_other_settings_are_refused_by_name(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.begin(SETTINGS)
    journal.keep(RESULTS)
    with pytest.raises(UserError, match=r"other settings: temperature was 0.5 and is 1.0. Choose another --output"):
        Journal(tmp_path).begin(SETTINGS | {"temperature": 1.0})


def test_results_of_another_benchmark_are_not_overwritten(tmp_path: Path):
    """Those of held-out rows have no results.jsonl, which was said to be missing."""
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"schema": 1, "benchmark": "task", "temperature": 1.0}))
    with pytest.raises(UserError, match=r'settings: benchmark was "task" and is "apps". Choose another --output'):
        Journal(tmp_path).begin(SETTINGS | {"benchmark": "apps"})
    Journal(tmp_path).refuse_others({"benchmark": "task", "temperature": 1.0})


def test_a_file_of_another_version(tmp_path: Path):
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(UserError, match="was written by another version of refinerl"):
        Journal(tmp_path).begin(SETTINGS)


def test_without_a_folder_nothing_is_kept():
    journal = Journal(None)
    assert journal.begin(SETTINGS) == []
    journal.keep(RESULTS)
    journal.finish()
    assert "--output DIR keeps what is done" in journal.standing()

"""Rows of metrics.jsonl, made and read back."""

from __future__ import annotations

import json

import pytest

from refinerl.errors import UserError
from refinerl.report.metrics import metrics_row, read_metrics


def test_metrics_of_a_run_without_steps_are_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_metrics_without_a_value_are_null(tmp_path):
    row = metrics_row(2, {"b": 1.0, "a": float("nan"), "c": float("inf")})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert read_metrics(tmp_path) == [{"schema": 1, "step": 2, "a": None, "b": 1.0, "c": None}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('"step": "1"', "its field 'step' must be a whole number"),
        ('"step": true', "its field 'step' must be a whole number"),
        ('"reward/mean": 1.0', "its field 'step' must be a whole number"),
        ('"step": 1, "reward/mean": "high"', "its field 'reward/mean' must be a number or null"),
        ('"step": 1, "reward/mean": [1.0]', "its field 'reward/mean' must be a number or null"),
    ],
)
def test_a_row_of_metrics_with_a_wrong_field_is_named(tmp_path, fields, said):
    (tmp_path / "metrics.jsonl").write_text(f'{{"schema": 1, {fields}}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:1 is not a step of a run: ") as caught:
        read_metrics(tmp_path)
    assert said in str(caught.value)


def test_a_number_with_which_nothing_can_be_computed_is_no_value(tmp_path):
    """JSON has no NaN; Python reads it all the same. The variance of 1e308 is too large for a float."""
    (tmp_path / "metrics.jsonl").write_text('{"schema": 1, "step": 1, "a": NaN, "b": -Infinity, "c": 1e308, "d": 2}\n')
    assert read_metrics(tmp_path) == [{"schema": 1, "step": 1, "a": None, "b": None, "c": None, "d": 2}]

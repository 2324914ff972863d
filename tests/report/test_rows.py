"""Rows of a run's files, written and read back."""

from __future__ import annotations

import json

import pytest

from refinerl.alignment import align
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Refinement, Reward, Rollout
from refinerl.report import rows

PROMPT = Prompt("7", "Hi", ({"role": "user", "content": "Hi"},), (1, 2), None)
Y, BETTER = Completion((5, 6, 2), (-1.0,) * 3, "ab", "stop"), Completion((5, 7, 2), (), "ac", "length")
ROLLOUT = Rollout(PROMPT, Y, Reward(0.5, "wrong_answer", 0.25), 3)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "rollouts").mkdir()
    return tmp_path


def test_a_row_comes_back_whole(run):
    (alignment,) = align([Y.token_ids], [BETTER.token_ids])
    refinement = Refinement(ROLLOUT, BETTER, None, alignment, accepted=True, weight=1)
    written = [
        rows.rollout_row(2, ROLLOUT, refinement, selected=True),
        rows.rollout_row(2, Rollout(PROMPT, Y, None, 0), None, selected=False),
    ]
    (run / "rollouts" / "step-2.jsonl").write_text("\n".join(map(rows.to_json, written)))
    first, second = rows.read_step(run, 2)
    assert [first, second] == written
    assert first == rows.RolloutRow(
        step=2,
        sample=3,
        selected=True,
        prompt=rows.PromptRow("7", "Hi", PROMPT.messages),
        completion=rows.CompletionRow("ab", (5, 6, 2), "stop"),
        reward=Reward(0.5, "wrong_answer", 0.25),
        refinement=rows.RefinementRow(
            rows.CompletionRow("ac", (5, 7, 2), "length"), None, True, 1, 2, pytest.approx(2 / 3)
        ),
    )
    assert (second.reward, second.refinement, second.selected) == (None, None, False)


def test_details_come_back(run):
    (alignment,) = align([Y.token_ids], [BETTER.token_ids])
    failing = Rollout(PROMPT, Y, Reward(0.5, "wrong_answer", 0.25, failure="Test 2 of 2."), 3)
    refinement = Refinement(failing, BETTER, None, alignment, accepted=True, weight=1)
    details = {"advantage": 0.5, "logprobs": (-0.123456, 0.0, float("-inf")), "split": lambda ids: [*map(str, ids)]}
    refined = rows.rollout_row(2, failing, refinement, selected=True, **details)
    probed = rows.rollout_row(2, failing, refinement, selected=True, probe=refinement, **details)
    (run / "rollouts" / "step-2.jsonl").write_text("\n".join(map(rows.to_json, (refined, probed))))
    assert rows.read_step(run, 2) == [refined, probed]
    back, with_probe = rows.read_step(run, 2)
    assert back.advantage == 0.5
    assert back.reward.failure == "Test 2 of 2."
    assert (back.completion.pieces, back.completion.logprobs) == (("5", "6", "2"), (-1.0, -1.0, -1.0))
    assert back.refinement.completion.logprobs == (-0.1235, 0.0, None)
    assert with_probe.refinement.completion.logprobs == ()  # they are the probe's
    assert with_probe.probe.completion.logprobs == (-0.1235, 0.0, None)


def test_rows_of_the_earlier_schema_are_read(run):
    row = json.loads(line(schema=1))
    assert {"advantage", "pieces", "logprobs"} & (row.keys() | row["completion"].keys()) == set()
    (run / "rollouts" / "step-1.jsonl").write_text(json.dumps(row))
    (back,) = rows.read_step(run, 1)
    assert (back.advantage, back.completion.logprobs, back.reward.failure) == (None, (), "")


def line(**changes):
    """Write the line of a rollout, with some of its fields replaced."""
    row = json.loads(rows.to_json(rows.rollout_row(1, ROLLOUT, None, selected=True)))
    return json.dumps(row | changes)


def test_other_schemas_and_other_steps_are_refused(run):
    with pytest.raises(UserError, match="no rollouts of step 1: it has none yet"):
        rows.read_step(run, 1)
    (run / "rollouts" / "step-1.jsonl").write_text(line(schema=3))
    with pytest.raises(UserError, match=r"step-1.jsonl:1 has schema 3, this version of refinerl reads 1 and 2"):
        rows.read_step(run, 1)
    with pytest.raises(UserError, match="no rollouts of step 3: it has 1 to 1"):
        rows.read_step(run, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"completion": {"text": "a", "token_ids": []}},
            "step-1.jsonl:1 is not a rollout: the field 'finish_reason' is",
        ),
        ({"prompt": None}, "step-1.jsonl:1 is not a rollout: a field has the wrong type"),
    ],
)
def test_a_damaged_row_is_named(run, changes, message):
    (run / "rollouts" / "step-1.jsonl").write_text(line(**changes))
    with pytest.raises(UserError, match=message):
        rows.read_step(run, 1)


def test_all_steps_are_read_in_order(run):
    (run / "config.yaml").touch()
    for step in (10, 9):
        (run / "rollouts" / f"step-{step}.jsonl").write_text(line(step=step))
    (run / "rollouts" / "step-11.partial").write_text("{")
    assert [row.step for row in rows.read_rollouts(run)] == [9, 10]


def test_metrics_of_a_run_without_steps_are_none(run):
    assert rows.read_metrics(run) == []


def test_metrics_without_a_value_are_null(run):
    row = rows.metrics_row(2, {"b": 1.0, "a": float("nan"), "c": float("inf")})
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert rows.read_metrics(run) == [{"schema": 1, "step": 2, "a": None, "b": 1.0, "c": None}]


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
def test_a_row_of_metrics_with_a_wrong_field_is_named(run, fields, said):
    (run / "metrics.jsonl").write_text(f'{{"schema": 1, {fields}}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:1 is not a step of a run: ") as caught:
        rows.read_metrics(run)
    assert said in str(caught.value)


def test_a_number_with_which_nothing_can_be_computed_is_no_value(run):
    """JSON has no NaN; Python reads it all the same. The variance of 1e308 is too large for a float."""
    (run / "metrics.jsonl").write_text('{"schema": 1, "step": 1, "a": NaN, "b": -Infinity, "c": 1e308, "d": 2}\n')
    assert rows.read_metrics(run) == [{"schema": 1, "step": 1, "a": None, "b": None, "c": None, "d": 2}]


def test_a_token_that_is_none_is_named(run):
    row = json.loads(rows.to_json(rows.rollout_row(2, ROLLOUT, None, selected=True)))
    for wrong in (2**31, -1):
        row["completion"]["token_ids"][0] = wrong
        (run / "rollouts" / "step-2.jsonl").write_text(json.dumps(row))
        with pytest.raises(UserError, match=r"step-2\.jsonl:1 is not a rollout: a field has the wrong type"):
            rows.read_step(run, 2)

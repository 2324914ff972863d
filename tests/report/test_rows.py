"""Rows of rollouts/, written and read back."""

from __future__ import annotations

import json

import pytest

from refinerl.alignment import align
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Refinement, Reward, Rollout
from refinerl.report import reading, rows

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
    first, second = reading.read_step(run, 2)
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
    assert reading.read_step(run, 2) == [refined, probed]
    back, with_probe = reading.read_step(run, 2)
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
    (back,) = reading.read_step(run, 1)
    assert (back.advantage, back.completion.logprobs, back.reward.failure) == (None, (), "")


def line(**changes):
    """Write the line of a rollout, with some of its fields replaced."""
    row = json.loads(rows.to_json(rows.rollout_row(1, ROLLOUT, None, selected=True)))
    return json.dumps(row | changes)


def test_other_schemas_and_other_steps_are_refused(run):
    with pytest.raises(UserError, match="no rollouts of step 1: it has none yet"):
        reading.read_step(run, 1)
    (run / "rollouts" / "step-1.jsonl").write_text(line(schema=3))
    with pytest.raises(UserError, match=r"step-1.jsonl:1 has schema 3, this version of refinerl reads 1 and 2"):
        reading.read_step(run, 1)
    with pytest.raises(UserError, match="no rollouts of step 3: it has 1 to 1"):
        reading.read_step(run, 3)


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
        reading.read_step(run, 1)


def test_all_steps_are_read_in_order(run):
    (run / "config.yaml").touch()
    for step in (10, 9):
        (run / "rollouts" / f"step-{step}.jsonl").write_text(line(step=step))
    (run / "rollouts" / "step-11.partial").write_text("{")
    assert [row.step for row in reading.read_rollouts(run)] == [9, 10]


def test_a_token_that_is_none_is_named(run):
    row = json.loads(rows.to_json(rows.rollout_row(2, ROLLOUT, None, selected=True)))
    for wrong in (2**31, -1):
        row["completion"]["token_ids"][0] = wrong
        (run / "rollouts" / "step-2.jsonl").write_text(json.dumps(row))
        with pytest.raises(UserError, match=r"step-2\.jsonl:1 is not a rollout: a field has the wrong type"):
            reading.read_step(run, 2)

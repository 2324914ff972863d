"""What a run writes of a rollout is what a reader gets."""

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
    lines = [
        rows.to_json(2, ROLLOUT, refinement, selected=True),
        rows.to_json(2, Rollout(PROMPT, Y, None, 0), None, selected=False),
    ]
    (run / "rollouts" / "step-2.jsonl").write_text("\n".join(lines))
    first, second = rows.read_step(run, 2)
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


def test_other_schemas_and_other_steps_are_said(run):
    with pytest.raises(UserError, match="no rollouts of step 1: it has none yet"):
        rows.read_step(run, 1)
    row = json.loads(rows.to_json(1, ROLLOUT, None, selected=True)) | {"schema": 2}
    (run / "rollouts" / "step-1.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"step-1.jsonl:1 has schema 2, this version of refinerl reads 1"):
        rows.read_step(run, 1)


def test_metrics_of_a_run_without_steps_are_none(run):
    assert rows.metrics(run) == []
